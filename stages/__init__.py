"""The stages of the pipeline: one file = one DVC stage = one section of params.yaml = one run in MLflow."""

import os

# Before MLflow is imported: telemetry off, and no minutes of retries against a server that is away, for an interrupted
# stage goes on where it was.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
