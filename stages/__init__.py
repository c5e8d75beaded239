"""The stages of the pipeline: one file = one DVC stage = one section of params.yaml = one run in MLflow."""

import os

# Set before MLflow is imported. Telemetry is off. Requests to an unreachable server fail soon instead of being
# retried for minutes, because an interrupted stage resumes where it was.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
