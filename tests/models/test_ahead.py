"""Batches prepared ahead are those of the stream, and the thread that prepares them never outlives the training."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from models.images.batches import Batch, BatchStream
from models.images.search import image_search
from models.images.spaces import search_space
from models.search.program import Search
from models.training.ahead import BATCHES_AHEAD, Ahead
from models.training.events import EpochEnd, Event, StepEnd
from models.training.loop import DATA_WAIT, run
from models.training.seeds import generator
from tests.conftest import REPOSITORY
from tests.models import tiny
from tests.models.processes import Interrupted, copied, repeatable
from tests.models.tiny import BATCH, PREPROCESS, STRATEGIES, config, loaders, split, task


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Whatever tests before this one, in the same process, have left behind."""
    before = threads()
    yield
    assert threads() <= before


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "batches ahead"}


class Watched(BatchStream):
    """Counts its batches; takes ``seconds`` for each; fails at number ``broken``, counted from 1."""

    seconds, broken, taken = 0.0, 0, 0

    def __next__(self) -> Batch:
        self.taken += 1
        if self.taken == self.broken:
            raise OSError(5, "Input/output error", "train_images.npy")
        time.sleep(self.seconds)
        return super().__next__()


def stream(**attributes: Any) -> Watched:
    """Three batches per pass of 14 images."""
    made = Watched(split(14, 0), BATCH, PREPROCESS, generator(0, "stream"))
    vars(made).update(attributes)
    return made


def searching(ahead: bool = True, name: str = "ms-darts", **attributes: Any) -> Search:
    """Two epochs of three steps. Without ``ahead``, each step prepares its own batches."""
    data = loaders(single=name.startswith("single"))
    data = type(data)(stream(**attributes), data.architecture, data.valid, data.calibration)
    space = search_space("nasbench201")
    program = image_search(
        task("nasbench201"), STRATEGIES[name](space, 2), data, config(), tiny.size("nasbench201")
    )
    if not ahead:
        program.streams = {stream: Inline(of.stream) for stream, of in program.streams.items()}
    return program


class Inline(Ahead):
    def __next__(self) -> Batch:
        return next(self.stream)


def test_the_batches_and_states_are_those_of_the_stream() -> None:
    """Over several passes, and continued by other streams after every batch."""
    ahead, plain = Ahead(stream()), stream()
    try:
        for _ in range(8):
            state, expected = copied(ahead.state_dict()), copied(plain.state_dict())
            assert state["position"] == expected["position"]
            assert all(torch.equal(state[name], expected[name]) for name in ("generator", "order"))
            batch, other = next(plain), Ahead(stream())
            other.load_state_dict(state)
            for mine in (next(ahead), next(other)):
                assert all(torch.equal(part, whole) for part, whole in zip(mine, batch, strict=True))
            other.close()
    finally:
        ahead.close()


@pytest.mark.parametrize("name", ["ms-darts", "darts-2nd", "single-level"])
def test_a_search_finds_the_same_with_and_without_the_thread(name: str) -> None:
    with_thread, without = run(searching(name=name)), run(searching(ahead=False, name=name))
    assert repeatable(with_thread.history) == repeatable(without.history)
    assert with_thread.summary == without.summary
    assert all(torch.equal(without.weights[each], weight) for each, weight in with_thread.weights.items())


def test_at_most_two_batches_are_ready_before_they_are_asked_for() -> None:
    of = stream()
    ahead = Ahead(of)
    assert of.taken == 0, "nothing is prepared before the first batch is asked for"
    for used in range(1, 4):
        next(ahead)
        deadline = time.monotonic() + 10
        while of.taken < used + BATCHES_AHEAD and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)
        assert of.taken == used + BATCHES_AHEAD
    ahead.close()
    assert of.state_dict()["position"] == 3 * BATCH, "the stream is where its user thinks it is"


def test_a_restored_stream_forgets_what_was_ready() -> None:
    ahead = Ahead(stream())
    state, first = copied(ahead.state_dict()), next(ahead)
    next(ahead)
    ahead.load_state_dict(state)
    assert torch.equal(next(ahead)[0], first[0])
    ahead.close()


@pytest.mark.parametrize("broken", [1, 2, 5])
def test_an_error_of_the_stream_is_the_error_of_its_step(broken: int) -> None:
    steps: list[int] = []

    def count(event: Event) -> None:
        if isinstance(event, StepEnd):
            steps.append(event.step)

    with pytest.raises(OSError, match="Input/output error") as raised:
        run(searching(broken=broken), on_event=count)
    assert raised.value.filename == "train_images.npy"
    assert len(steps) == broken - 1, "batches before the error are used"


def test_whoever_asks_again_gets_the_error_again() -> None:
    ahead = Ahead(stream(broken=1))
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            next(ahead)
    ahead.close()


def test_a_stream_that_was_never_closed_ends_its_thread_when_it_is_dropped() -> None:
    before = threads()
    ahead = Ahead(stream())
    next(ahead)
    (thread,) = threads() - before
    del ahead
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_the_thread_computes_alone_and_leaves_the_step_its_threads() -> None:
    class Noting(Watched):
        def __next__(self) -> Batch:
            counts.append(torch.get_num_threads())
            return super().__next__()

    counts: list[int] = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ahead = Ahead(Noting(split(14, 0), BATCH, PREPROCESS, generator(0, "stream")))
        next(ahead)
        assert counts[0] == 1
        assert torch.get_num_threads() == 2
        ahead.close()
    finally:
        torch.set_num_threads(before)


def test_closing_does_not_rely_on_one_wake_up() -> None:
    """A signal's exception within a release can leave the wake-up with a waiter that is gone."""
    ahead = Ahead(stream())
    next(ahead)
    thread = ahead._thread
    assert thread is not None
    deadline = time.monotonic() + 10
    while thread.ready.qsize() < BATCHES_AHEAD and time.monotonic() < deadline:
        time.sleep(0.001)  # until the thread waits for room
    release, lost = thread.room.release, []
    thread.room.release = lambda: release() if lost else lost.append(True)  # pyright: ignore[reportAttributeAccessIssue]
    ahead.close()
    assert lost and not thread.thread.is_alive()


def test_an_interrupted_training_leaves_no_thread_and_continues_where_it_was() -> None:
    kept: list[Any] = []
    before = threads()

    def interrupt(event: Event) -> None:
        if isinstance(event, EpochEnd):
            kept.append(copied(event.state()))
        elif kept:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(searching(), on_event=interrupt)
    assert threads() <= before
    resumed, whole = run(searching(), resume=kept[0]), run(searching())
    assert repeatable(resumed.history) == repeatable(whole.history)


def test_the_history_has_the_share_of_the_time_that_steps_wait() -> None:
    """A step takes some milliseconds here."""
    quick, slow = (
        [float(row[DATA_WAIT] or 0) for row in found.history]
        for found in (run(searching()), run(searching(seconds=0.3)))
    )
    assert all(0 <= share <= 1 for share in (*quick, *slow))
    assert min(slow) > 0.5 > quick[1] > 0


LEFT_OPEN = """
import torch
from models.training.ahead import Ahead

class Slow:
    def __len__(self):
        return 1

    def __next__(self):
        x = torch.ones(700, 700)
        for _ in range(20):
            x = x @ x / 700
        return x, x

    def state_dict(self):
        return {}

stream = Ahead(Slow())
next(stream)
"""


def test_a_process_ends_well_although_a_thread_is_within_torch() -> None:
    """Python stops a daemon's thread as soon as it comes back from C++, which torch answers with abort()."""
    assert subprocess.run([sys.executable, "-c", LEFT_OPEN], cwd=REPOSITORY, check=False).returncode == 0
