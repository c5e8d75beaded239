"""Makes the buckets of DVC and MLflow in the object storage of AWS_ENDPOINT_URL, where they are not there yet."""

import boto3  # pyright: ignore[reportMissingImports]: in the image alone
from botocore.config import Config  # pyright: ignore[reportMissingImports]

NAMES = ("dvc", "mlflow")

storage = boto3.client("s3", config=Config(retries={"total_max_attempts": 10}))  # it may still be starting
there = {bucket["Name"] for bucket in storage.list_buckets()["Buckets"]}
for name in NAMES:
    if name not in there:
        storage.create_bucket(Bucket=name)
        print(f"made bucket {name}")
