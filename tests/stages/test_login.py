"""The pipeline on an MLflow server that asks for a login, with the credentials in the environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.stages.conftest import TINY, write_params
from tests.stages.test_register_server import Server

USER, PASSWORD = "admin", "a long password"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with logins, and one user."""
    pytest.importorskip("flask_wtf", reason="Flask-WTF is not installed; `make auth` installs it")
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = NO_PERMISSIONS\n"
        f"database_uri = sqlite:///{folder / 'users.db'}\n"
        f"admin_username = {USER}\nadmin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    server = Server(
        folder, "--app-name", "basic-auth", MLFLOW_AUTH_CONFIG_PATH=str(folder / "auth.ini"),
        MLFLOW_FLASK_SERVER_SECRET_KEY="of these tests",
    )  # fmt: skip
    server.start()
    yield server
    server.kill()


def test_a_network_is_registered_with_a_login_and_refused_without(
    guarded: Server,
    finished_copy: Path,
    run_stage: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_params(finished_copy / "params.yaml", {**TINY, "registry.name": "guarded"})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    for password in ("", "wrong"):
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        assert run_stage("register") == 2
        error = capsys.readouterr().err
        assert error.startswith("error: register: MLflow at http://127.0.0.1:") and error.count("\n") == 1
        assert "MLFLOW_TRACKING_USERNAME" in error and "wrong" not in error

    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    assert run_stage("register") == 0, capsys.readouterr().err
    assert PASSWORD not in "".join(capsys.readouterr())
    version = MlflowClient(guarded.uri).get_model_version_by_alias("guarded", "champion")
    assert int(version.version) == 1
    files = [file.path for file in MlflowClient(guarded.uri).list_artifacts(version.tags["run_register"])]
    assert files, "artifacts go through the server, too"
