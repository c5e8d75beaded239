"""Errors with one sentence for a person: for whoever starts the server, or for whoever sends it a request."""

from __future__ import annotations


class StartError(Exception):
    """The server cannot start with these settings; the message says which one is wrong and how to fix it."""


class ModelError(Exception):
    """A model cannot be served: it is not ONNX, breaks the contract, or cannot be fetched."""


class RequestError(Exception):
    """A request is answered with an HTTP status and one sentence instead of a prediction."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Busy(RequestError):
    """There is no room for this request now; the client may try again in a second."""

    def __init__(self) -> None:
        super().__init__(503, "The server is busy; try again in a second.")
