"""Reads series where each can do no harm, and writes their forecasts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from serving.errors import Busy, RequestError
from serving.forms import FORM, JSON, count_parts, media_type
from serving.known import Known
from serving.settings import MIB, ServeSettings
from serving.stamps import Times
from serving.tables import Table, read_tables

if TYPE_CHECKING:
    from serving.series import Series

# Bodies of up to so many bytes are read on the event loop, in a thread of several, or else in one that reads one body at a
# time. Reading 2 KiB takes 0.1 ms.
HERE, SMALL = 2048, 64 * 2**10
LARGE_WAITING = 16  # requests that wait for the one thread
_WRITE_HERE = 500  # numbers and times of an answer that the event loop writes itself, in up to 3 ms
_NUMBER_BYTES, _TIME_BYTES = 16, 36  # in an answer, at most


@dataclass(frozen=True, eq=False)
class Asked:
    """Series as the network takes them, with the times of their rows and of those that follow."""

    inputs: NDArray[np.float32]  # (cases, look-back, variables)
    times: Sequence[Times | None]
    kind: Series
    most: int  # bytes of the answer

    async def answer(self, outputs: NDArray[np.float32], known: Known, *, view: bool) -> str:
        unfit = ~np.isfinite(outputs).all(axis=(1, 2))
        if unfit.any():
            which = f"Series {unfit.argmax() + 1}: the" if len(outputs) > 1 else "The"
            raise RequestError(
                422,
                f"{which} forecast has no finite number, because the values are far from all that the network knows.",
            )
        rows = outputs.shape[1] + (self.inputs.shape[1] if view else 0)
        numbers, times = outputs.size + (self.inputs.size if view else 0), len(outputs) * rows
        if numbers * _NUMBER_BYTES + times * _TIME_BYTES > self.most:
            raise RequestError(413, f"The answer is too large; it may have {self.most / MIB:g} MiB.")
        if numbers + times <= _WRITE_HERE:
            return self._written(outputs, view)
        return await asyncio.to_thread(self._written, outputs, view)

    def _written(self, outputs: NDArray[np.float32], view: bool) -> str:
        """One column at a time, because no other Python code runs while one is written."""
        back, ahead, kind = self.inputs.shape[1], outputs.shape[1], self.kind
        predictions = []
        for number, times in enumerate(self.times):
            members = [
                f'"time":{_times(times, back, back + ahead)}',
                f'"step":{json.dumps(list(range(1, ahead + 1)))}',
                f'"columns":{_columns(kind.targets, outputs[number])}',
            ]
            if view:
                seen = _columns(kind.variables, self.inputs[number])
                members.append(f'"view":{{"time":{_times(times, 0, back)},"columns":{seen}}}')
            predictions.append(f"{{{','.join(members)}}}")
        return f'"targets":{json.dumps(kind.targets)},"predictions":[{",".join(predictions)}]'


def _times(times: Times | None, start: int, end: int) -> str:
    return json.dumps(None if times is None else times.told(start, end))


def _columns(names: Sequence[str], values: NDArray[np.float32]) -> str:
    """Rows (rows, columns) as JSON: name -> the shortest numbers that are these float32."""
    columns = (
        f"{json.dumps(name)}:[{','.join(values[:, place].astype(str).tolist())}]"
        for place, name in enumerate(names)
    )
    return f"{{{','.join(columns)}}}"


class SeriesReader:
    """Reads the tables of requests: serving/tables.py."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.most = settings.max_series
        self.soon = 0
        self._threads = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="read")
        self._for_large = ThreadPoolExecutor(1, thread_name_prefix="read-large")
        self._large_waiting = 0

    def limit(self, content_type: str) -> float:
        json_ = media_type(content_type)[0] == JSON
        return self.settings.max_json_mib if json_ else self.settings.max_body_mib

    def count(self, content_type: str, body: bytearray) -> int | None:
        kind, options = media_type(content_type)
        if kind == FORM:
            return count_parts(options.get(b"boundary", b""), body, self.most)
        if len(body) <= SMALL:
            return None
        return self.most if kind == JSON else 1

    async def read(self, kind: Series, content_type: str, body: bytearray) -> Asked:
        if len(body) <= HERE:
            return self._read(kind, content_type, body)
        loop = asyncio.get_running_loop()
        if len(body) <= SMALL:
            self.soon += 1
            try:
                return await loop.run_in_executor(self._threads, self._read, kind, content_type, body)
            finally:
                self.soon -= 1
        if self._large_waiting >= LARGE_WAITING:
            raise Busy
        self._large_waiting += 1
        try:
            return await loop.run_in_executor(self._for_large, self._read, kind, content_type, body)
        finally:
            self._large_waiting -= 1

    def _read(self, kind: Series, content_type: str, body: bytearray) -> Asked:
        tables = read_tables(content_type, body, kind.columns(), self.most)
        times = [_going_on(kind, table) for table in tables]
        return Asked(
            np.stack([table.values for table in tables]), times, kind, int(self.settings.max_body_mib * MIB)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        for threads in (self._threads, self._for_large):
            threads.shutdown(cancel_futures=True)


def _going_on(kind: Series, table: Table) -> Times | None:
    if table.times is None:
        return None
    return kind.clock.go_on(
        table.times, kind.horizon, lambda number: table.where(table.first + number, kind.time)
    )
