"""The schema of params.yaml for circuits, and the metrics of their targets."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages import params as shared
from stages import search_params as searching
from stages.evaluation import Metric
from stages.section import Count, Natural, NotNegative, Positive, Section

# Beyond requirements.lock; `make circuits` installs them.
PACKAGES: Sequence[str] = ("qiskit", "qiskit-aer", "pylatexenc", "openqasm3", "qdk")

FIDELITY = Metric(name="fidelity", case="state", higher_is_better=True, outcomes="numbers", significant=6)
METRICS: Mapping[str, Metric] = {
    "state": FIDELITY,
    "unitary": FIDELITY,
    "mitigation": FIDELITY,
    "maxcut": Metric(
        name="cut_ratio", case="graph", higher_is_better=True, outcomes="numbers", significant=6
    ),
    "vqe": Metric(
        name="energy", case="hamiltonian", higher_is_better=False, outcomes="numbers", significant=8
    ),
}
FILE = "file"  # the target that data.root holds
TARGETS: Mapping[str, Sequence[str]] = {
    "state": ("ghz", "w", "bell", FILE),
    "unitary": ("qft", "toffoli", "swap", FILE),
    "mitigation": ("qft", FILE),
    "maxcut": ("prism", "random", FILE),
    "vqe": ("h2", FILE),
}
MOST_QUBITS = 10


class NoiseParams(Section, frozen=True):
    idle: list[str]
    moment: list[str]
    gate: list[str]


class DataParams(shared.DataParams, frozen=True):
    name: Literal["state", "unitary", "mitigation", "maxcut", "vqe"]
    target: str
    qubits: Annotated[int, Field(ge=1, le=MOST_QUBITS)]
    input_states: Annotated[int, Field(ge=1, le=10_000)]
    degree: Count
    graphs: Annotated[int, Field(ge=1, le=1000)]
    bond_length: Annotated[float, Field(ge=0.2, le=5.0)]
    initial: Natural
    noise: NoiseParams

    def reads_folders(self) -> bool:
        return False

    def inactive(self) -> Collection[str]:
        given = self.target == FILE
        drawn = (self.name, self.target) == ("maxcut", "random")
        unused = {
            # A file has its number of qubits, as molecules, graphs and gates have.
            "qubits": given or self.target in ("bell", "toffoli", "swap", "prism", "h2"),
            "input_states": self.name not in ("unitary", "mitigation"),
            "degree": not drawn,
            "graphs": not drawn,
            "seed": not drawn and self.name not in ("unitary", "mitigation"),
            "bond_length": (self.name, self.target) != ("vqe", "h2"),
            "initial": self.name != "vqe",
            **{f"noise.{key}": self.name != "mitigation" for key in NoiseParams.model_fields},
        }
        return [key for key, inactive in unused.items() if inactive]


class AlphaParams(searching.AlphaParams, frozen=True):
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]


class SampledParams(Section, frozen=True):
    """The score function: what the losses of samples are compared with, which move alpha, how far probabilities may go."""

    baseline: Literal["previous", "running", "none"]
    best: Annotated[float, Field(gt=0, le=1)]
    clip: Annotated[float, Field(gt=0, le=1)] | None


class SearchParams(searching.SearchParams, frozen=True):
    strategy: Literal["dqas", "rho-darts"]
    space: Literal["circuit"]
    operations: Annotated[list[str], Field(min_length=2, max_length=200)]
    places: Annotated[int, Field(ge=1, le=200)] | None
    steps: Count
    restarts: Annotated[int, Field(ge=1, le=1000)]
    learning_rate: Positive
    learning_rate_end: Positive
    initial_angles: NotNegative
    angle_noise: NotNegative
    alpha: AlphaParams
    dqas: SampledParams
    repetition: NotNegative
    two_qubit_cost: NotNegative

    def named_space(self) -> str:
        return json.dumps({"operations": self.operations, "places": self.places})

    def inactive(self) -> Collection[str]:
        if self.strategy != "dqas":
            return ("batch_size", "angle_noise", *(f"dqas.{key}" for key in SampledParams.model_fields))
        return ("dqas.baseline",) if self.dqas.best < 1 else ()  # the worst of the best takes its place


class RetrainParams(shared.RetrainParams, frozen=True):
    steps: Count
    starts: Annotated[int, Field(ge=1, le=10_000)]
    learning_rate: Positive
    learning_rate_end: Positive
    initial_angles: NotNegative


class ExportParams(shared.ExportParams, frozen=True):
    basis: Annotated[list[str], Field(min_length=1)]
    optimization: Literal[0, 1, 2, 3]


class Params(shared.Params, frozen=True):
    """All of params.yaml, for circuits."""

    data: DataParams
    search: SearchParams
    retrain: RetrainParams
    export: ExportParams

    @model_validator(mode="after")
    def _across_keys(self) -> Params:
        if self.data.target not in (known := TARGETS[self.data.name]):
            raise ValueError(
                f"data.target is {self.data.target!r}; for data.name {self.data.name} it should be one of {', '.join(known)}"
            )
        if (self.data.name == "mitigation") != (self.search.places is None):
            raise ValueError(
                f"search.places is {self.search.places}; it should be null for data.name mitigation, whose places are the"
                " holes of the circuit, and a number for all others"
            )
        if self.train.devices > 1:
            raise ValueError(
                f"train.devices is {self.train.devices}; it should be 1, because circuits of up to {MOST_QUBITS} qubits fit"
                " on one"
            )
        if self.train.precision != "auto":
            raise ValueError(
                f"train.precision is {self.train.precision}; it should be auto, because amplitudes have a precision of their"
                " own"
            )
        if self.latency.known():
            raise ValueError(
                "latency: circuits have no latency; set latency.budget_ms and latency.measurements to null, latency.weight to"
                " auto, and latency.always to false"
            )
        return self


def metric(params: shared.Params) -> Metric:
    """The metric of the target that the settings name."""
    return METRICS[params.data.name]
