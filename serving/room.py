"""Room for a number of cases, which are images or series. A request waits in line for it, and is refused after a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from serving.errors import Busy


@dataclass(eq=False)
class Room:
    """Counts the cases that are being read, wait for the network, or are in it."""

    size: int
    seconds: float  # the longest wait in line
    taken: int = 0
    _line: dict[asyncio.Future[None], int] = field(default_factory=dict)  # cases, in the order of arrival

    def full(self) -> bool:
        """Whether a request for even one case would have to wait."""
        return bool(self._line) or not self._fits(1)

    @asynccontextmanager
    async def hold(self, cases: int) -> AsyncIterator[None]:
        """Takes room as long as the context is open. Raises Busy if the wait for it is too long.

        A request for more than the whole room gets all of it.
        """
        await self._enter(cases)
        try:
            yield
        finally:
            self._leave(cases)

    async def _enter(self, cases: int) -> None:
        if not self._line and self._fits(cases):
            self.taken += cases
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line[admitted] = cases
        try:
            async with asyncio.timeout(self.seconds):
                await admitted
        except BaseException as error:
            if admitted.cancelled():
                self._line.pop(admitted, None)
                self._admit()
            else:  # admitted at the last moment
                self._leave(cases)
            if isinstance(error, TimeoutError):
                raise Busy from None
            raise

    def _leave(self, cases: int) -> None:
        self.taken -= cases
        self._admit()

    def _admit(self) -> None:
        while self._line:
            admitted, cases = next(iter(self._line.items()))
            if not admitted.cancelled():
                if not self._fits(cases):
                    return
                self.taken += cases
                admitted.set_result(None)
            del self._line[admitted]

    def _fits(self, cases: int) -> bool:
        return not self.taken or self.taken + cases <= self.size
