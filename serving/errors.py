"""What a person can get wrong, in one sentence: the one who starts the server, and the one who asks it."""

from __future__ import annotations


class StartError(Exception):
    """The server cannot start as it was told to; the message says what, where, and how to mend it."""


class ModelError(Exception):
    """A model that cannot be served: not ONNX, not the contract, or not to be had from the registry."""


class RequestError(Exception):
    """A request that is answered with a status and one sentence instead of a prediction."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Busy(RequestError):
    """There is no room for this request now; the client may come back in a second."""

    def __init__(self) -> None:
        super().__init__(503, "The server is busy; try again in a second.")
