"""From what went wrong to an HTTP status: the one table."""

from __future__ import annotations

from aiohttp import web

from gateway.wire.errors import Fault, Refusal

STATUS: dict[Fault, int] = {
    Fault.INVALID: 400,
    Fault.NOT_FOUND: 404,
    Fault.TOO_LARGE: 413,
    Fault.UNSUPPORTED_MEDIA: 415,
    Fault.OVERLOADED: 429,
    Fault.INTERNAL: 500,
    Fault.BACKEND_UNREACHABLE: 502,
    Fault.UNAVAILABLE: 503,
    Fault.BACKEND_TIMEOUT: 504,
}


def error_response(refusal: Refusal) -> web.Response:
    """The JSON answer for a refusal, with `Retry-After` where one is known."""
    response = web.Response(
        status=STATUS[refusal.fault], body=refusal.body(), content_type="application/json"
    )
    if refusal.retry_after_s is not None:
        response.headers["Retry-After"] = str(refusal.retry_after_s)
    return response
