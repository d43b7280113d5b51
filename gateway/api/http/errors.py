"""From what went wrong to an HTTP status: the one table."""

from __future__ import annotations

import math
import uuid

import orjson
from aiohttp import web

from gateway.core.reason import Reason
from gateway.wire.bodies import codings
from gateway.wire.errors import Fault, Refusal
from gateway.wire.failures import Failure
from gateway.wire.http.headers import set_own
from gateway.wire.http.messages import phrase, serialised

STATUS: dict[Fault, int] = {
    Fault.INVALID: 400,
    Fault.UNAUTHENTICATED: 401,
    Fault.FORBIDDEN: 403,
    Fault.NOT_FOUND: 404,
    Fault.METHOD: 405,
    Fault.TOO_SLOW: 408,
    Fault.TOO_LARGE: 413,
    Fault.UNSUPPORTED_CODING: 415,
    Fault.EXPECTATION: 417,
    Fault.KEY_REUSED: 422,
    Fault.NO_WEBSOCKET: 426,
    Fault.OVERLOADED: 429,
    Fault.HEAD_TOO_LARGE: 431,
    Fault.INTERNAL: 500,
    Fault.NOT_IMPLEMENTED: 501,
    Fault.UNKNOWN_METHOD: 501,
    Fault.BACKEND_UNREACHABLE: 502,
    Fault.UNAVAILABLE: 503,
    Fault.BACKEND_TIMEOUT: 504,
    Fault.VERSION: 505,
}


METHODS = (
    "ACL, BIND, CHECKOUT, COPY, DELETE, GET, HEAD, LINK, LOCK, M-SEARCH, MERGE, MKACTIVITY, "
    "MKCALENDAR, MKCOL, MOVE, NOTIFY, OPTIONS, PATCH, POST, PROPFIND, PROPPATCH, PURGE, PUT, QUERY, "
    "REBIND, REPORT, SEARCH, SOURCE, SUBSCRIBE, UNBIND, UNLINK, UNLOCK, UNSUBSCRIBE"
)
"""All that aiohttp's parser knows but `CONNECT` and `TRACE`. Others are passed on, too (see `methods`)."""

_RETRY_AFTER_MAX_S = 24 * 3600


def backend_error_response(
    status: int | None, reason: Reason, failure: Failure, retry_after_s: float | None
) -> web.Response:
    """The error answer of a plain request that the backend did not answer well.

    Args:
        status: The backend's own, which is passed on; without one (or with that of a success which then
            failed), one that says what happened.
        retry_after_s: Sent as `Retry-After`.
    """
    code = failure["code"]
    if status is None or status < 400:
        status, code = reason.http_status, reason.code or code
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    if status == 429:
        kind = "rate_limit_error"
    error = {"message": failure["message"], "type": kind, "param": None, "code": code}
    body = orjson.dumps({"error": error})
    response = web.Response(status=status, body=body, content_type="application/json")
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(math.ceil(min(retry_after_s, _RETRY_AFTER_MAX_S)))
    return response


def error_response(refusal: Refusal) -> web.Response:
    """The JSON answer for a refusal, with `Retry-After` where one is known, and the challenge of a 401."""
    response = web.Response(
        status=STATUS[refusal.fault], body=refusal.body(), content_type="application/json"
    )
    if refusal.fault in (Fault.METHOD, Fault.UNKNOWN_METHOD):  # RFC 9110 §15.5.6
        response.headers["Allow"] = METHODS  # which of them a path knows, its backend says
    if refusal.fault is Fault.UNSUPPORTED_CODING:  # RFC 9110 §15.5.16: this, and not the Content-Type
        response.headers["Accept-Encoding"] = codings.ACCEPTED
    if refusal.fault is Fault.NO_WEBSOCKET:  # RFC 9110 §15.5.22: a 426 says what is spoken; §7.8: and how
        response.headers["Upgrade"] = "HTTP/1.1"
        response.headers["Connection"] = "Upgrade, close"  # as after every upgrade that is declined
    if refusal.retry_after_s is not None:
        response.headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.fault is Fault.UNAUTHENTICATED:
        response.headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 §11.6.1: a 401 says how
    return response


def error_bytes(refusal: Refusal) -> bytes:
    """The same, whole, for a connection on which no request is answered; it is the last thing said there."""
    response = error_response(refusal)
    set_own(response.headers, str(uuid.uuid4()))
    body = refusal.body()
    headers = {**response.headers, "Content-Length": str(len(body)), "Connection": "close"}
    head = serialised(f"HTTP/1.1 {response.status} {phrase(response.status)}", headers.items())
    return head + b"\r\n" + body
