"""Batches prepared ahead: a thread takes the next ones from a stream while the step before them computes.

The thread alone uses the stream, and takes its batches in order, so that every random number is drawn as it is
without the thread. Each batch comes with the stream's state after it. What is saved is the state after the last
batch that was handed out, so the batches that are ready but not used yet are prepared again after a resumption.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from queue import SimpleQueue
from typing import Any, Protocol

import torch

from models.training.evaluation import Batch

BATCHES_AHEAD = 2


class Stream(Protocol):
    """An endless stream of batches, whose state can be saved and restored."""

    def __len__(self) -> int:
        """Batches in one pass."""
        ...

    def __next__(self) -> Batch: ...

    def state_dict(self) -> dict[str, Any]:
        """The present state. Later batches must not change what was returned."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Ahead:
    """A stream whose next batches a thread prepares. It starts with the first batch and ends with ``close``,
    or when nobody holds this object any more.

    ``waited`` is how many seconds its user has waited for batches. An error of the stream is raised where its
    batch would have been handed out. ``stream`` must not be used between the first batch and ``close``.
    """

    def __init__(self, stream: Stream):
        self.stream = stream
        self.waited = 0.0
        self._thread: _Thread | None = None

    def __len__(self) -> int:
        return len(self.stream)

    def __next__(self) -> Batch:
        start = time.perf_counter()
        if self._thread is None:
            self._thread = _Thread(self.stream)
            self._forgotten = weakref.finalize(self, self._thread.stop)
        try:
            return self._thread.take()
        finally:
            self.waited += time.perf_counter() - start

    def state_dict(self) -> dict[str, Any]:
        return self.stream.state_dict() if self._thread is None else self._thread.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.close()
        self.stream.load_state_dict(state)

    def close(self) -> None:
        """Ends the thread, after the batch that it is preparing. The stream is where its user thinks it is."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            self._forgotten.detach()
            thread.end()
            self.stream.load_state_dict(thread.state)


class _Thread:
    """Prepares batches until it is told to end or the stream fails."""

    def __init__(self, stream: Stream):
        self.stream = stream
        self.state = stream.state_dict()  # after the last batch that was handed out
        self.room = threading.Semaphore(BATCHES_AHEAD)
        self.ready: SimpleQueue[tuple[Batch, dict[str, Any]] | BaseException] = SimpleQueue()
        self.ending = False
        self.thread = threading.Thread(target=self._prepare, name="batches ahead", daemon=True)
        self.thread.start()
        _started.add(self)

    def take(self) -> Batch:
        found = self.ready.get()
        if isinstance(found, BaseException):
            self.ready.put(found)  # for whoever asks again
            raise found
        batch, self.state = found
        self.room.release()
        return batch

    def stop(self) -> None:
        """Tells the thread to end after the batch that it is preparing."""
        self.ending = True
        self.room.release()

    def end(self) -> None:
        """Returns when the thread has ended, after the batch that it is preparing."""
        while self.thread.is_alive():
            # Again and again: an exception that a signal raises within a release may swallow its wake-up.
            self.stop()
            self.thread.join(timeout=0.1)

    def _prepare(self) -> None:
        # This holds for the calling thread. A second team of OpenMP threads would compete with the team of the step:
        # on two cores, a step of the default search then took twice the time.
        torch.set_num_threads(1)
        try:
            while self.room.acquire() and not self.ending:
                batch = next(self.stream)
                self.ready.put((batch, self.stream.state_dict()))
        except BaseException as error:
            self.ready.put(error)


_started: weakref.WeakSet[_Thread] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """A thread that comes back from torch while Python shuts down makes the process abort, its work done or not."""
    for thread in list(_started):
        thread.end()
