"""The stages of the pipeline: one file = one DVC stage = one section of params.yaml = one run in MLflow."""
