"""The files that bring the flow to a server and to a team's machines."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.schedules import CronSchedule
from ruamel.yaml import YAML

from pipelines.deploy import POOL, gpu_names
from pipelines.nas import nas
from tests.stages.conftest import ROOT

SYSTEMD, COMPOSE = ROOT / "deploy/systemd", ROOT / "deploy/compose"


def read(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path)


def test_every_deployment_names_an_existing_flow() -> None:
    deployments = {
        deployment["name"]: deployment for deployment in read(ROOT / "prefect.yaml")["deployments"]
    }
    assert deployments.keys() >= {"on-demand", "nightly"}
    for deployment in deployments.values():
        file, name = deployment["entrypoint"].split(":")
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.M)
        assert deployment["work_pool"] == {"name": POOL, "work_queue_name": "default"}
        for schedule in deployment.get("schedules", []):
            assert CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"]).timezone
    assert nas.name == "nas"


def test_worker_and_deployment_agree_on_the_names_of_gpus(tmp_path: Path) -> None:
    prefect = tmp_path / "prefect"
    prefect.write_text('#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES,$MSDARTS_GPU_LIMIT,$*"\n')
    prefect.chmod(0o755)

    def worker(*arguments: str) -> list[str]:
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "MSDARTS_HOST": "tall"}
        command = [str(ROOT / "deploy/worker"), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip().split(",")

    device, limit, command = worker("1")
    assert (device, limit) == ("1", gpu_names(2, "tall")[1])
    assert f"--pool {POOL} " in command
    assert command.endswith(f"--work-queue default --work-queue {limit}")
    device, limit, command = worker()
    assert (device, limit) == ("", "")
    assert command.endswith("--work-queue default")


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    (tmp_path / "program").write_text("#!/bin/sh\n")
    (tmp_path / "program").chmod(0o755)
    units = sorted(SYSTEMD.glob("*.service"))
    assert len(units) == 4
    for unit in units:
        text = unit.read_text()
        program = re.search(r"^ExecStart=(\S+)", text, re.M)
        assert program is not None
        assert program[1].startswith("/srv/msdarts/")
        text = text.replace(program[1], str(tmp_path / "program"))  # the project is not in /srv here
        (tmp_path / unit.name.replace("@", "@0")).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.glob("*.service")))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "msdarts" in line]
    assert (done.returncode, said) == (0, [])


def test_compose_accepts_its_file() -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no docker compose on this machine")
    secrets = dict.fromkeys(("DATABASE_PASSWORD", "STORAGE_USER", "STORAGE_PASSWORD"), "x")
    command = [docker, "compose", "-f", str(COMPOSE / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", **secrets}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_everything_that_the_compose_file_names_exists() -> None:
    content = read(COMPOSE / "compose.yaml")
    services = content["services"]
    assert services.keys() == {"postgres", "storage", "buckets", "prefect", "mlflow", "worker-0"}
    for service in services.values():
        for needed in service.get("depends_on", []):
            assert needed in services
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (COMPOSE / source).exists() if source.startswith(".") else source in content["volumes"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
        if "build" in service:
            assert (COMPOSE / service["build"]["context"] / service["build"]["dockerfile"]).exists()
    assert (ROOT / services["buckets"]["command"].split()[-1]).exists()
    assert services["worker-0"]["command"] == "deploy/worker 0"
    assert services["worker-0"]["environment"].keys() >= {
        "PREFECT_API_URL",
        "MLFLOW_TRACKING_URI",
        "AWS_ENDPOINT_URL",
    }


def test_no_image_takes_passwords_or_the_hosts_environment() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {"**/.env", ".dvc/config.local", ".venv", "artifacts", "mlflow.db*"} <= set(ignored)
    for secret in ("deploy/compose/.env", ".dvc/config.local"):
        assert not subprocess.run(["git", "check-ignore", "-q", secret], cwd=ROOT, check=False).returncode
