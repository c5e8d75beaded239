"""Room for a number of images. A request waits in line for it, and is refused after a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from serving.errors import Busy


@dataclass(eq=False)
class Room:
    """Counts the images that are being decoded, wait for the network, or are in it."""

    size: int
    seconds: float  # the longest wait in line
    taken: int = 0
    _line: dict[asyncio.Future[None], int] = field(default_factory=dict)  # images, in the order of arrival

    def full(self) -> bool:
        """Whether a request for even one image would have to wait."""
        return bool(self._line) or not self._fits(1)

    @asynccontextmanager
    async def hold(self, images: int) -> AsyncIterator[None]:
        """Takes room as long as the context is open. Raises Busy if the wait for it is too long.

        A request for more than the whole room gets all of it.
        """
        await self._enter(images)
        try:
            yield
        finally:
            self._leave(images)

    async def _enter(self, images: int) -> None:
        if not self._line and self._fits(images):
            self.taken += images
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line[admitted] = images
        try:
            async with asyncio.timeout(self.seconds):
                await admitted
        except BaseException as error:
            if admitted.cancelled():
                self._line.pop(admitted, None)
                self._admit()
            else:  # admitted at the last moment
                self._leave(images)
            if isinstance(error, TimeoutError):
                raise Busy from None
            raise

    def _leave(self, images: int) -> None:
        self.taken -= images
        self._admit()

    def _admit(self) -> None:
        while self._line:
            admitted, images = next(iter(self._line.items()))
            if not admitted.cancelled():
                if not self._fits(images):
                    return
                self.taken += images
                admitted.set_result(None)
            del self._line[admitted]

    def _fits(self, images: int) -> bool:
        return not self.taken or self.taken + images <= self.size
