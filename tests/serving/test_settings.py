"""Settings: where they come from, and the message about a wrong one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving.__main__ import main
from serving.errors import StartError
from serving.settings import read_settings
from tests.serving.conftest import REPOSITORY


def test_options_override_the_environment_which_overrides_params(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("serve:\n  port: 1\n  max_images: 3\n  api_key: old\nother: 5\n")
    monkeypatch.setenv("MSDARTS_API_KEY", "new")
    settings = read_settings({"port": "2"}, params)
    assert (settings.port, settings.max_images) == (2, 3)
    assert settings.api_key
    assert settings.api_key.get_secret_value() == "new"


@pytest.mark.parametrize(
    ("text", "options", "name"),
    [
        ("registry: {name: cats}", {}, "cats"),
        ("registry: {name: cats}\nserve: {name: dogs}", {}, "dogs"),
        ("registry: {name: cats}\nserve: {name: dogs}", {"name": "birds"}, "birds"),
        ("registry: {name: 7}", {"name": "birds"}, "birds"),
        ("registry: {min_gain: 0.0}", {}, "msdarts"),
    ],
)
def test_the_registered_model_is_the_one_in_params(
    tmp_path: Path, text: str, options: dict[str, str], name: str
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(text)
    assert read_settings(options, params).name == name


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("serve: {prot: 1}", "serve.prot is unknown; did you mean serve.port?"),
        ("serve: {port: 99999}", "serve.port: input should be less than or equal to 65535, got 99999"),
        ("serve: [1]", "serve: must be a mapping of settings, got [1]"),
        ("registry: [1]", "registry: must be a mapping of settings, got [1]"),
        ("registry: {name: 7}", "registry.name: must be the name of a registered model, got 7"),
        ("[1]", "params.yaml: must be a mapping of sections, got [1]"),
        ("serve: [", "cannot be read"),
        ("serve: {api_key: [secret]}", "serve.api_key: input should be a valid string"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path: Path, text: str, sentence: str) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(text)
    with pytest.raises(StartError) as error:
        read_settings({}, params)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--port", "many"], "serving: serve.port: "),
        (["--model", "nowhere.onnx"], "serving: nowhere.onnx: cannot be read (No such file or directory)"),
        (["--params", "nowhere.yaml"], "serving: nowhere.yaml: cannot be read"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(sentence)


def test_an_address_of_another_machine_is_refused_in_one_line(model_file: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "serving", "--model", str(model_file), "--host", "192.0.2.1"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith(
        "serving: serve.host, serve.port: cannot listen on 192.0.2.1 port 8000 ("
    )
    assert "Traceback" not in run.stderr
