"""`python -m benchmarks.circuits [found] [speed]`: what the search of circuits finds, and how fast circuits are simulated.

`found` searches and tunes circuits for states, a noisy Fourier transform, a graph and a molecule, once per seed. What is
in benchmarks/results/circuits.json already is not computed again, so that it can be stopped and started at any time.
`speed` measures one thread against the number of qubits and circuits, and against PennyLane's default.qubit. Both
write benchmarks/results/circuits.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import _circuits_report, _circuits_speed
from models.circuits.circuit import SuperCircuit, names
from models.circuits.hydrogen import HARTREE_FOCK, hydrogen
from models.circuits.named import PRISM, QFT_NOISE, haar_states, named_state, qft_holes
from models.circuits.notation import sequence, with_holes
from models.circuits.search import CircuitSearchConfig, circuit_search
from models.circuits.targets import Target, maxcut_target, mitigation_target, state_target, vqe_target
from models.circuits.tuning import TuningConfig, tuning
from models.search.score_function import ScoreFunction, ScoreFunctionConfig
from models.search.spaces import SearchSpace
from models.search.strategies import AlphaConfig, Alternating
from models.training.loop import run
from models.training.seeds import generator

RESULTS = Path(__file__).parent / "results" / "circuits.json"
PAGE = RESULTS.with_suffix(".md")
BOND_LENGTHS = (0.5, 0.735, 1.5)  # angstrom

GHZ_POOL = ("ry(0)", "ry(1)", "ry(2)", "cx(0,1)", "cx(1,0)", "cx(0,2)", "cx(2,0)", "h(0)", "h(1)", "h(2)")
BELL_POOL = ("h(0)", "h(1)", "cx(0,1)", "cx(1,0)", "x(0)", "x(1)")
W_POOL = ("id", "x(0)", "x(1)", "x(2)", "cry(0,1)+cx(1,0)", "cry(1,2)+cx(2,1)", "cry(0,2)+cx(2,0)")
RANDOM_POOL = ("u(0)+u(1)+u(2)", "cx(0,1)+u(0)+u(1)", "cx(1,2)+u(1)+u(2)", "cx(0,2)+u(0)+u(2)")
BLOCKS = (
    "h(*)", "rx(*)+rzz(*)", "rzz(*)+ry(*)", "rzz(*)+rx(*)", "rzz(*)+rz(*)", "rxx(*)+rz(*)", "ryy(*)+rx(*)",
    "rx(*)+rz(*)",
)  # fmt: skip
H2_POOL = (
    "id", "ry(0)", "ry(1)", "ry(2)", "ry(3)", "cx(2,3)", "cx(3,2)", "cx(2,0)", "cx(2,1)", "cx(1,2)", "cx(0,1)",
    "cx(1,0)", "cx(0,2)",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A search and a tuning, repeated with ``seeds`` seeds."""

    problem: Callable[[], tuple[SuperCircuit, Target]]
    seeds: int
    alpha_rate: float = 0.15
    sampling: ScoreFunctionConfig = field(default_factory=ScoreFunctionConfig)
    search: CircuitSearchConfig = field(default_factory=CircuitSearchConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)


def _state(
    name: str, qubits: int, pool: tuple[str, ...], places: int
) -> Callable[[], tuple[SuperCircuit, Target]]:
    return lambda: (sequence(qubits, pool, places), state_target(named_state(name, qubits)))


def _random_state() -> tuple[SuperCircuit, Target]:
    state = haar_states(1, 3, generator(0, "random state"))[0]
    return sequence(3, RANDOM_POOL, 5), state_target(state)


def _qft() -> tuple[SuperCircuit, Target]:
    circuit = with_holes(3, qft_holes(3), ("x", "y", "z", "id", "t", "s"), QFT_NOISE)
    return circuit, mitigation_target(circuit)


def _prism() -> tuple[SuperCircuit, Target]:
    return sequence(6, BLOCKS, 3, PRISM), maxcut_target([PRISM], 6)


def _hydrogen(length: float) -> Callable[[], tuple[SuperCircuit, Target]]:
    return lambda: (sequence(4, H2_POOL, 4), vqe_target(hydrogen(length), HARTREE_FOCK))


BEST_TENTH = ScoreFunctionConfig(best=0.1)
NOTHING_TO_TUNE = TuningConfig(epochs=1, steps=1, starts=1)  # where no operation has a free angle
CASES: Mapping[str, Case] = {
    "GHZ-3": Case(_state("ghz", 3, GHZ_POOL, 4), 10),
    "bell": Case(_state("bell", 2, BELL_POOL, 3), 10, search=CircuitSearchConfig(epochs=5), tuning=TuningConfig(epochs=5)),
    "W-3": Case(
        _state("w", 3, W_POOL, 4), 10, sampling=BEST_TENTH, search=CircuitSearchConfig(epochs=8, restarts=4), tuning=TuningConfig(epochs=5)
    ),
    "random 3-qubit state": Case(
        _random_state, 1, sampling=ScoreFunctionConfig(samples=64), search=CircuitSearchConfig(epochs=5), tuning=TuningConfig(epochs=10)
    ),
    **{
        f"H2 at {length} angstrom": Case(
            _hydrogen(length), 1, 0.1, BEST_TENTH, CircuitSearchConfig(epochs=10), TuningConfig(epochs=10)
        )
        for length in BOND_LENGTHS
    },
    "QFT-3, best tenth": Case(
        _qft, 10, 0.1, ScoreFunctionConfig(samples=64, best=0.1), CircuitSearchConfig(epochs=8), NOTHING_TO_TUNE
    ),
    "MaxCut, prism": Case(
        _prism, 4, sampling=ScoreFunctionConfig(samples=64),
        search=CircuitSearchConfig(epochs=10, learning_rate=0.04), tuning=TuningConfig(epochs=10, starts=4),
    ),
    "QFT-3, as published": Case(_qft, 10, 0.1, search=CircuitSearchConfig(epochs=15), tuning=NOTHING_TO_TUNE),
}  # fmt: skip


def found(case: Case, seed: int) -> dict[str, Any]:
    """One search and one tuning: their scores, the operations found, and the seconds of processor time."""
    circuit, target = case.problem()

    def strategy(space: SearchSpace) -> Alternating:
        alpha = AlphaConfig(case.alpha_rate, (0.8, 0.99), weight_decay=0.0, warmup_epochs=0)
        estimator = ScoreFunction(case.sampling, generator(seed, "samples"))
        return Alternating(space, alpha, generator(seed, "alpha"), estimator=estimator)

    started = time.process_time()
    searched = run(circuit_search(circuit, target, target, strategy, case.search, seed))
    between = time.process_time()
    start = searched.weights["angles"]
    tuned = run(tuning(circuit, searched.genotype, target, target, case.tuning, seed, start=start))
    return {
        "seed": seed,
        "searched": searched.summary[f"discretized_{target.metric}"],
        "tuned": tuned.history[tuned.best_epoch - 1][f"valid_{target.metric}"],
        "operations": list(names(searched.genotype)),
        "search_seconds": between - started,
        "tuning_seconds": time.process_time() - between,
    }


def all_found(results: dict[str, Any]) -> None:
    """Adds what is missing to the results, and writes them after each seed."""
    for name, case in CASES.items():
        rows = results.setdefault("found", {}).setdefault(name, [])
        for seed in range(len(rows), case.seeds):
            rows.append(found(case, seed))
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            print(name, {key: value for key, value in rows[-1].items() if key != "operations"}, flush=True)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=("found", "speed"), default=["found", "speed"])
    parts = parser.parse_args(arguments).parts
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if "found" in parts:
        all_found(results)
    if "speed" in parts:
        results["speed"] = _circuits_speed.measured()
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(_circuits_report.page(results))


if __name__ == "__main__":
    main(sys.argv[1:])
