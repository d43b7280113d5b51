"""Backends that see one key for all callers, and would show anybody's stored responses to each of them.

Whose a response is stands in our store, or nowhere: what names one that is not there is not passed on to such
a backend, whatever the shape of its id and whichever the path.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from aiohttp import web

from gateway.api.http.bodies import looked_over, read_body
from gateway.api.ports import Backend
from gateway.wire.bodies.classify import may_name_previous
from gateway.wire.errors import Fault, Refusal, invalid

COMPUTING = frozenset({"input_tokens", "compact"})
"""Endpoints that have the shape of `/responses/{id}` and store nothing."""


def speaks_of_responses(request: web.BaseRequest) -> bool:
    """Whether any server might take the path for one of stored responses."""
    path = unquote(request.raw_path.partition("?")[0]).casefold()
    return "responses" in re.split(r"[/\\;]", path)


def keep_sockets_apart(request: web.BaseRequest, backend: Backend) -> None:
    """Raises: Refusal, of a socket in whose messages any response can be named."""
    if not backend.sees_callers and speaks_of_responses(request):
        raise _not_passed_on()


async def keep_apart(
    request: web.BaseRequest, backend: Backend, body: bytes | None, *, collection: str, bytes_max: int
) -> bytes | None:
    """The body of a request that may be passed on, if it had to be read.

    Args:
        collection: Path of `/responses`.
        bytes_max: Of a body that must be read.

    Raises:
        Refusal: It names a stored response, or could.
    """
    if backend.sees_callers or not speaks_of_responses(request):
        return body
    path = request.raw_path.partition("?")[0]
    if request.method != "POST" or path not in {f"{collection}/{name}" for name in COMPUTING}:
        raise _not_passed_on()
    body = body if body is not None else await read_body(request, bytes_max)
    await refuse_previous(body)
    return body


async def refuse_previous(body: bytes) -> None:
    """Raises: Refusal, of a body that goes on from some response, or of which that cannot be said."""
    if await looked_over(may_name_previous(body)):
        raise invalid(
            "Only responses of this gateway can be gone on from, by a 'previous_response_id' given once.",
            param="previous_response_id",
            code="previous_response_not_found",
        )


def _not_passed_on() -> Refusal:
    return Refusal(Fault.NOT_FOUND, "There is no such path here.")
