"""The search and the tuning of circuits as programs of the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from models.circuits.circuit import SuperCircuit, bound, genotype, names
from models.circuits.named import QFT_NOISE, named_state, qft_holes
from models.circuits.notation import sequence, with_holes
from models.circuits.objective import check_memory
from models.circuits.search import CircuitSearch, CircuitSearchConfig, circuit_search
from models.circuits.simulate import final_state
from models.circuits.targets import Target, mitigation_target, state_target
from models.circuits.tuning import Tuning, TuningConfig, tuning
from models.errors import InvalidInput
from models.search.gradients import Joint, Pathwise, unrolled
from models.search.score_function import ScoreFunction, ScoreFunctionConfig
from models.search.spaces import SearchSpace
from models.search.strategies import AlphaConfig, Alternating
from models.training.events import EpochEnd, Event, State
from models.training.loop import Program, run
from models.training.seeds import generator
from tests.models.processes import Interrupted, copied, repeatable

BELL_POOL = ["ry(0)", "ry(1)", "cx(0,1)", "cx(1,0)", "id"]
FOUND = ["ry(0)", "cx(0,1)"]
ALPHA = AlphaConfig(0.15, (0.8, 0.99), weight_decay=0.0, warmup_epochs=0)


def bell() -> tuple[SuperCircuit, Target]:
    return sequence(2, BELL_POOL, 2), state_target(named_state("bell", 2))


def sampling(space: SearchSpace, **settings: Any) -> Alternating:
    estimator = ScoreFunction(ScoreFunctionConfig(32, **settings), generator(0, "samples"))
    return Alternating(space, ALPHA, generator(0, "alpha"), estimator=estimator)


def exact(space: SearchSpace) -> Alternating:
    return Alternating(space, ALPHA, generator(0, "alpha"), estimator=Joint())


def search(strategy: Callable[[SearchSpace], Alternating] = sampling, **changes: Any) -> CircuitSearch:
    config = CircuitSearchConfig(**{"epochs": 4, "steps": 15, "restarts": 2, **changes})
    return circuit_search(bell()[0], bell()[1], bell()[1], strategy, config, seed=0)


def tuned(**changes: Any) -> Tuning:
    circuit, target = bell()
    config = TuningConfig(**{"epochs": 3, "steps": 5, "starts": 3, **changes})
    return tuning(circuit, genotype(FOUND), target, target, config, seed=0)


@pytest.mark.parametrize("strategy", [sampling, exact])
def test_a_search_finds_a_circuit_for_the_bell_state(strategy: Any) -> None:
    circuit, target = bell()
    found = run(search(strategy))
    trained = run(
        tuning(
            circuit, found.genotype, target, target, TuningConfig(10, 15), 0, start=found.weights["angles"]
        )
    )
    state = final_state(bound(circuit, found.genotype, trained.weights["angles"]), 2)
    assert abs(torch.vdot(named_state("bell", 2), state)) ** 2 > 0.9999
    assert found.history[-1]["valid_fidelity"] == pytest.approx(found.summary["supernet_fidelity"])
    gap = found.summary["supernet_fidelity"] - found.summary["discretized_fidelity"]
    assert found.summary["discretization_gap"] == pytest.approx(gap)


def test_the_best_restart_is_the_result_and_its_rows_are_those_of_one_circuit() -> None:
    program = search(restarts=4)
    found = run(program)
    standing = program._standing(program._mix_after(4), 4)
    best = int(standing.loss.argmin())
    assert found.summary["discretized_fidelity"] == pytest.approx(float(standing.score.max()))
    assert len(found.alphas) == 4 and found.alphas[-1]["circuit"].shape == (2, 5)
    assert torch.equal(found.alphas[-1]["circuit"], program.alphas[-1][f"restart {best + 1}"])
    likeliest = [BELL_POOL[op] for op in found.alphas[-1]["circuit"].argmax(dim=-1).tolist()]
    assert list(names(found.genotype)) == likeliest
    state = final_state(bound(bell()[0], found.genotype, found.weights["angles"]), 2)
    fidelity = float(abs(torch.vdot(named_state("bell", 2), state)) ** 2)
    assert fidelity == pytest.approx(found.summary["discretized_fidelity"], abs=1e-5)


@pytest.mark.parametrize(
    "program",
    [
        lambda: search(angle_noise=0.1, epochs=3, steps=3),
        lambda: search(
            lambda space: sampling(space, baseline="running", clip=0.9, best=0.5), epochs=3, steps=3
        ),
        lambda: search(exact, learning_rate_end=0.01, epochs=3, steps=3),
        tuned,
    ],
    ids=["noise", "sampled", "exact", "tuning"],
)
def test_it_resumes_bit_for_bit(program: Callable[[], Program[Any]]) -> None:
    whole, kept = run(program()), list[State]()

    def interrupt(event: Event) -> None:
        if isinstance(event, EpochEnd) and event.epoch == 2:
            kept.append(copied(event.state()))
            raise Interrupted

    with pytest.raises(Interrupted):
        run(program(), on_event=interrupt)
    again = run(program(), resume=kept[0])
    assert repeatable(again.history) == repeatable(whole.history)
    assert all(torch.equal(again.weights[name], weight) for name, weight in whole.weights.items())


def test_tuning_keeps_the_best_start_at_its_best_epoch() -> None:
    circuit, target = bell()
    found = genotype(FOUND)
    program = tuning(circuit, found, target, target, TuningConfig(epochs=5, starts=6), 1)
    trained = run(program)
    assert trained.weights["starts"].shape == (6, 2, 1)
    scores = []
    for angles in trained.weights["starts"]:
        state = final_state(bound(circuit, found, angles), 2)
        scores.append(float(abs(torch.vdot(named_state("bell", 2), state)) ** 2))
    best = trained.history[trained.best_epoch - 1]
    assert best["valid_fidelity"] == pytest.approx(max(scores))
    assert best["valid_loss"] == min(row["valid_loss"] or 0.0 for row in trained.history)


def test_a_circuit_without_free_angles_is_searched_and_tuned() -> None:
    circuit = with_holes(2, qft_holes(2), ["x", "id", "t"], QFT_NOISE)
    target = mitigation_target(circuit)
    config = CircuitSearchConfig(epochs=2, steps=10, restarts=2)
    found = run(circuit_search(circuit, target, target, sampling, config, 0))
    trained = run(tuning(circuit, found.genotype, target, target, TuningConfig(2, 2, starts=1), 0))
    assert trained.history[-1]["valid_fidelity"] == pytest.approx(
        found.summary["discretized_fidelity"], abs=1e-5
    )


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(InvalidInput, match="choose another estimator"):
        run(
            search(
                lambda space: Alternating(space, ALPHA, generator(0, "alpha"), estimator=Pathwise(unrolled))
            )
        )
    circuit, target = bell()
    with pytest.raises(InvalidInput, match="2 qubits need about .* GiB for 1000000 circuits at a time"):
        check_memory(circuit, target, 1_000_000, 2**20)
    check_memory(circuit, target, 128, 2**30)
    with pytest.raises(InvalidInput, match="0 starts"):
        tuned(starts=0)
    with pytest.raises(InvalidInput, match="the circuit has 3 qubits and its target 2"):
        circuit_search(sequence(3, BELL_POOL, 2), target, target, sampling, CircuitSearchConfig(), 0)
