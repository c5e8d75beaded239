"""The stages of the pipeline: one file = one DVC stage = one section of params.yaml = one run in MLflow."""

import atexit
import gc
import os

from stages.plumbing import earlier
from stages.plumbing.starting import end_at_once, is_stage_of_dvc, module_of_command

end_at_once("stages")
if is_stage_of_dvc():
    atexit.register(earlier.bring_back)  # however the stage ends, even while it imports

# Set before MLflow is imported. Telemetry is off. Requests to an unreachable server fail soon instead of being
# retried for minutes, because an interrupted stage resumes where it was.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

# Importing torch and MLflow makes more than a million objects that live until the end. Looking through them for garbage again
# and again, and once more at the end, takes almost as long as the imports. So the process of a stage rarely looks for
# garbage until it trains (``settled``), and never at its end.
GARBAGE_THRESHOLD = gc.get_threshold()
# True for python -m stages.NAME, false for a program that imports stages.
if module_of_command().startswith("stages."):
    gc.set_threshold(1_000_000)
    atexit.register(gc.freeze)
