"""Creates the buckets of DVC and MLflow in the object storage at AWS_ENDPOINT_URL, unless they exist."""

import boto3  # pyright: ignore[reportMissingImports]: installed in the image only
from botocore.config import Config  # pyright: ignore[reportMissingImports]

NAMES = ("dvc", "mlflow")

storage = boto3.client("s3", config=Config(retries={"total_max_attempts": 10}))  # it may still be starting
existing = {bucket["Name"] for bucket in storage.list_buckets()["Buckets"]}
for name in NAMES:
    if name not in existing:
        storage.create_bucket(Bucket=name)
        print(f"created bucket {name}")
