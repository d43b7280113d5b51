"""Errors of requests, in the API's own words.

A `Refusal` says what is wrong; which HTTP status that is, is chosen in `gateway.api.http.errors`.
The body's shape is OpenAI's `{"error": {"message", "type", "param", "code"}}`.
"""

from __future__ import annotations

from enum import Enum, auto

import orjson


class Fault(Enum):
    """Kinds of refusal; `gateway.api.http.errors` holds the one table to HTTP statuses."""

    INVALID = auto()
    UNAUTHENTICATED = auto()
    FORBIDDEN = auto()
    NOT_FOUND = auto()
    METHOD = auto()
    UNKNOWN_METHOD = auto()
    TOO_SLOW = auto()
    TOO_LARGE = auto()
    EXPECTATION = auto()
    KEY_REUSED = auto()
    UNSUPPORTED_CODING = auto()
    NO_WEBSOCKET = auto()
    HEAD_TOO_LARGE = auto()
    OVERLOADED = auto()
    NOT_IMPLEMENTED = auto()
    VERSION = auto()
    UNAVAILABLE = auto()
    BACKEND_UNREACHABLE = auto()
    BACKEND_TIMEOUT = auto()
    INTERNAL = auto()


_TYPE = {
    Fault.OVERLOADED: "rate_limit_error",
    Fault.UNAVAILABLE: "server_error",
    Fault.BACKEND_UNREACHABLE: "server_error",
    Fault.BACKEND_TIMEOUT: "server_error",
    Fault.INTERNAL: "server_error",
}


class Refusal(Exception):
    """A request that gets an error answer instead of what it asked for.

    Args:
        message: For a person; names the field and the limit, never a credential or an address.
        param: The request field at fault, if one is.
        code: Machine-readable reason.
        retry_after_s: Sent as `Retry-After`. The official SDKs give up above 120 s.
    """

    def __init__(
        self,
        fault: Fault,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    def body(self) -> bytes:
        """The JSON answer."""
        kind = _TYPE.get(self.fault, "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})


def invalid(message: str, *, param: str | None = None, code: str | None = "invalid_value") -> Refusal:
    """A request the client must change (HTTP 400)."""
    return Refusal(Fault.INVALID, message, param=param, code=code)


def not_found(response_id: str) -> Refusal:
    """The same bytes for unknown, expired, deleted and foreign ids: none may be told from another."""
    return Refusal(Fault.NOT_FOUND, f"Response with id '{response_id}' not found.")


def no_websocket() -> Refusal:
    """The refusal of a WebSocket whose request works as a POST: clients fall back at once (HTTP 426)."""
    message = "WebSockets are not spoken here. Send the request by POST, and stream its events over HTTP."
    return Refusal(Fault.NO_WEBSOCKET, message, code="websocket_not_supported")


def too_large(bytes_max: int) -> Refusal:
    """A body over a limit, as it came or decoded."""
    message = f"The request body is larger than {bytes_max} bytes."
    return Refusal(Fault.TOO_LARGE, message, code="request_too_large")
