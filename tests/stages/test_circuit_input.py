"""What a user can do wrong with circuits is one line that says what, where and the remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stages.circuits.training as training
from models.errors import InvalidInput
from stages.circuits.data import read_card, super_circuit, target_of
from stages.circuits.params import Params
from stages.circuits.prepare import prepare, sources
from stages.errors import UserError
from tests.stages.circuits import from_file, needs_packages, params_of, settings
from tests.stages.processes import ROOT

pytestmark = needs_packages


def refusal(tmp_path: Path, params: Any) -> str:
    """The one line with which prepare refuses a target."""
    (tmp_path / "data").mkdir(exist_ok=True)
    with pytest.raises(UserError) as error:
        prepare(params, tmp_path / "data")
    assert "\n" not in str(error.value)
    return str(error.value)


def saved(tmp_path: Path, array: Any) -> Path:
    np.save(tmp_path / "target.npy", array)
    return tmp_path / "target.npy"


HALF = 2**-0.5
ARRAYS = [
    ("state", [1.0, 1.0], "the state has norm 1.41421; divide it by that"),
    ("state", [1.0, 0.0, 0.0], r"the state has the shape \(3,\); it needs 2\^n entries"),
    ("state", [[1.0, 0.0]], r"has the shape \(1, 2\); it needs 2\^n entries"),
    ("state", [np.nan, 0.0], "the state has entries that are not finite numbers; remove NaN"),
    ("state", [1.0], r"has the shape \(1,\)"),
    ("state", ["a", "b"], "holds <U1, not numbers"),
    ("unitary", [[1.0, 0.0], [1.0, 1.0]], "the matrix is not unitary: .* differs from the identity by"),
    ("unitary", [[1.0, 0.0]], r"has the shape \(1, 2\); it needs 2\^n x 2\^n entries"),
    ("unitary", [[1.0, 0.0], [0.0, np.inf]], "entries that are not finite numbers"),
]


@pytest.mark.parametrize(("name", "array", "said"), ARRAYS)
def test_an_array_that_is_no_target_is_refused(tmp_path: Path, name: str, array: Any, said: str) -> None:
    line = refusal(tmp_path, from_file(name, saved(tmp_path, np.asarray(array))))
    assert re.search(said, line) and "target.npy" in line


def test_a_pickle_a_damaged_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, np.asarray([1.0, HALF]))
    np.save(file, np.asarray([{"code": 1}]), allow_pickle=True)
    assert "is no array that can be read (Object arrays cannot be loaded" in refusal(
        tmp_path, from_file("state", file)
    )
    file.write_bytes(saved(tmp_path, np.asarray([1.0, 0.0])).read_bytes()[:-4])
    assert "is no array that can be read" in refusal(tmp_path, from_file("state", file))
    np.savez(tmp_path / "z.npz", a=np.ones(2))
    assert "is no array that can be read (the magic string" in refusal(
        tmp_path, from_file("state", tmp_path / "z.npz")
    )
    with file.open("wb") as large:
        large.truncate(10**9)
    assert "has 1000.0 MB, more than the 0.0 MB that 10 qubits take" in refusal(
        tmp_path, from_file("state", file)
    )
    assert "is no file; name the file" in refusal(tmp_path, from_file("state", tmp_path / "none.npy"))


TEXTS = [
    (
        "vqe",
        "ZZ,0.5\nXX,0.1j\n",
        "line 2: the Hamiltonian is not Hermitian, because XX has the coefficient 0.1j",
    ),
    ("vqe", "ZZ,0.5\nXX,nan\n", "line 2: the coefficient of XX is nan; give a finite number"),
    ("vqe", "ZZ,0.5\nX,0.1\n", "the Pauli string 'X' is not 2 of the letters I, X, Y, Z"),
    ("vqe", "ZQ,0.5\n", "the Pauli string 'ZQ' is not"),
    ("vqe", "ZZ,0.5\nZZ,0.1\n", "line 2: ZZ is there twice"),
    ("vqe", "ZZ 0.5\n", "line 1: 'ZZ 0.5' is no term"),
    ("vqe", "Z" * 11 + ",1\n", "11 qubits; set 1 to 10"),
    ("vqe", "# nothing\n", "has no terms"),
    ("maxcut", "0,1\n1,x\n", "line 2: '1,x' is no edge"),
    ("maxcut", "0,1\n1,1\n", "line 2: the edge 1,1 leads to itself"),
    ("maxcut", "0,1\n1,0\n", "line 2: the edge 1,0 is in line 1 already"),
    ("maxcut", "0,10\n", "line 1: the edge 0,10 is out of range; choose nodes from 0 to 9"),
    ("maxcut", "0,-1\n", "line 1: the edge 0,-1 is out of range"),
    ("maxcut", "\n", "has no edges"),
    (
        "mitigation",
        "qubit[2] q;\nhole q[0];\nmeasure q[0];\n",
        "line 3: quantum measurement statement is not supported",
    ),
    ("mitigation", "qubit[2] q;\nhole q[2];\n", "line 2: qubit 2 of q is out of range; choose from 0 to 1"),
    ("mitigation", "qubit[2] q;\nhole q[0]\nh q[0];\n", "line 3: is not OpenQASM 3"),
    ("mitigation", "qubit[2] q;\nqft q[0];\n", "line 2: gate 'qft' is unknown; choose one of"),
    ("mitigation", "qubit[2] q;\nctrl @ x q[0], q[1];\n", "line 2: ctrl, inv and pow are not supported"),
    ("mitigation", "qubit[2] q;\nrx(1/0) q[0];\n", "line 2: an angle is no finite number"),
    ("mitigation", "qubit[2] q;\nh q[0];\n", "the circuit has no holes; leave at least one"),
    ("mitigation", "qubit[11] q;\n", "line 1: 11 qubits; set 1 to 10"),
    ("mitigation", "input float a;\nqubit q;\n", "line 1: input is not supported"),
    ("mitigation", "gate a b { a b; }\nqubit q;\na q;\n", "definitions nested too deeply"),
    ("mitigation", "(" * 5000, "is nested too deeply"),
    ("mitigation", "h q[0];\n", "line 1: the register 'q' is not declared"),
]


@pytest.mark.parametrize(("name", "text", "said"), TEXTS)
def test_a_text_that_is_no_target_is_refused_with_its_line(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / "target").write_text(text)
    line = refusal(tmp_path, from_file(name, tmp_path / "target"))
    assert said in line and line.startswith(str(tmp_path / "target"))


def test_texts_that_are_no_texts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "is not a text file in UTF-8" in refusal(tmp_path, from_file("mitigation", tmp_path / "binary"))
    assert "is no CSV file" in refusal(tmp_path, from_file("vqe", tmp_path / "binary"))
    (tmp_path / "long").write_text("0,1\n" * 300_000)
    assert "MB, more than the 1.0 MB" in refusal(tmp_path, from_file("maxcut", tmp_path / "long"))


def test_what_is_read_is_what_the_files_say(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("a,b\n# remark\n2,0\n\n0,1\n")
    assert sources.read_edges(str(tmp_path / "edges.csv")) == ((0, 2), (0, 1))
    (tmp_path / "terms.csv").write_text("pauli,coefficient\nzz, 0.5\nXI,-1e-3\n")
    assert sources.read_paulis(str(tmp_path / "terms.csv")) == {"ZZ": 0.5, "XI": -1e-3}


SETTINGS = [
    (
        {"data__target": "w7"},
        "data.target is 'w7'; for data.name state it should be one of ghz, w, bell, file",
    ),
    ({"data__qubits": 11}, "less than or equal to 10"),
    ({"search__places": None}, "search.places is None; it should be null for data.name mitigation"),
    ({"data__name": "mitigation", "data__target": "qft"}, "search.places is 4; it should be null"),
    ({"train__devices": 2, "search__batch_size": 4}, "train.devices is 2; it should be 1"),
    ({"train__precision": "bfloat16"}, "train.precision is bfloat16; it should be auto"),
    ({"latency__budget_ms": 3.0}, "circuits have no latency"),
    ({"search__strategy": "ms-darts"}, "'dqas' or 'rho-darts'"),
]


@pytest.mark.parametrize(("changes", "said"), SETTINGS)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        params_of(**changes)


OPERATIONS = [
    (["ry(0)", "foo(1)"], "operation 'foo(1)': gate 'foo' is unknown; choose one of"),
    (["ry(0)", "cx(0,3)"], "operation 'cx(0,3)': qubit 3 is out of range; choose from 0 to 2"),
    (["ry(0)", "cx(1,1)"], "the same qubit twice"),
    (["ry(0)", "ry(0)"], "the pool has ry(0) twice"),
    (["ry(0)", "x"], "write it with its qubits"),
]


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which the stage prepare has run on the profile."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "artifacts" / "data"
    folder.mkdir(parents=True)
    card = prepare(params_of(), folder)
    from stages.circuits.params import FIDELITY

    card.write(folder / "data.json", FIDELITY)
    return tmp_path


@pytest.mark.parametrize(("operations", "said"), OPERATIONS)
def test_operations_that_do_not_fit_are_refused_before_the_search(
    prepared: Path, operations: list[str], said: str
) -> None:
    with pytest.raises(InvalidInput, match=re.escape(said)):
        training.search(params_of(search__operations=operations))


def test_more_than_memory_allows_is_refused_with_estimate_and_limit(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        available = 2**20

    monkeypatch.setattr(training.psutil, "virtual_memory", Memory)
    with pytest.raises(
        InvalidInput, match=r"3 qubits need about [\d.]+ GiB .* but the limit is 0.0 GiB; lower the samples"
    ):
        training.search(params_of(search__batch_size=100_000))


def test_damaged_artifacts_name_the_file_and_the_remedy(prepared: Path) -> None:
    file = prepared / "artifacts" / "data" / "target.npy"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(
        UserError,
        match=r"artifacts/data/target.npy is damaged \(.*\); delete artifacts/data and run `dvc repro`",
    ):
        target_of(read_card(), "test")
    file.unlink()
    with pytest.raises(UserError, match="artifacts/data/target.npy is missing; `dvc repro prepare` makes it"):
        target_of(read_card(), "test")


def test_a_mistake_ends_the_stage_with_status_2_and_keeps_earlier_results(
    prepared: Path,
    store: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    run_stage: Any,
) -> None:
    from ruamel.yaml import YAML

    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tests")
    (prepared / "data").mkdir()
    file, before = (
        saved(prepared, np.asarray([1.0, 1.0])),
        (prepared / "artifacts/data/data.json").read_bytes(),
    )
    content = settings(data__target="file", data__root=str(file))
    YAML(typ="safe").dump(content, prepared / "params.yaml")
    assert run_stage("prepare") == 2
    said = capsys.readouterr().err.strip()
    assert said == f"error: prepare: {file}: the state has norm 1.41421; divide it by that, so that it is 1"
    assert (prepared / "artifacts/data/data.json").read_bytes() == before


def test_without_its_packages_the_task_names_the_command(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run_stage: Any
) -> None:
    from ruamel.yaml import YAML

    from stages.plumbing import settings as reading

    monkeypatch.setattr(reading, "missing", lambda _: ["qiskit", "qdk"])
    (prepared / "data").mkdir()
    YAML(typ="safe").dump(settings(), prepared / "params.yaml")
    assert run_stage("prepare") == 2
    assert capsys.readouterr().err.strip() == (
        "error: prepare: the task circuits needs packages that are not installed (qiskit, qdk); install them with"
        " `make circuits`"
    )


def test_the_settings_in_the_documentation_are_settings_that_work(tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    text = (ROOT / "docs" / "circuits.md").read_text()
    found = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(found) == 5
    for number, snippet in enumerate(found):
        content = settings()
        for section, changes in YAML(typ="safe").load(snippet).items():
            for key, value in changes.items():
                if isinstance(value, dict):
                    content[section][key] |= value
                else:
                    content[section][key] = value
        if content["data"]["target"] == "file":
            np.save(tmp_path / "state.npy", np.full(8, 8**-0.5))
            content["data"]["root"] = str(tmp_path / "state.npy")
        params, folder = Params.model_validate(content), tmp_path / str(number)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("stages.circuits.data.DATA", folder)
            card = prepare(params, folder)
            assert super_circuit(card, params.search.operations, params.search.places).places
