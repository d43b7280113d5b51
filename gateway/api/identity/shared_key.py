"""Backends that see one key for all callers, and would show anybody's stored responses to each of them.

Whose a response is stands in our store, or nowhere: what names one that is not there is not passed on to such
a backend, whatever the shape of its id and whichever the path.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from urllib.parse import unquote

from gateway.api.ports import Backend
from gateway.wire.bodies.classify import may_name_previous
from gateway.wire.errors import Fault, Refusal, invalid
from gateway.wire.http.head import Head

COMPUTING = frozenset({"input_tokens", "compact"})
"""Endpoints that have the shape of `/responses/{id}` and store nothing."""


def speaks_of_responses(head: Head) -> bool:
    """Whether any server might take the path for one of stored responses."""
    path = unquote(head.path).casefold()
    return "responses" in re.split(r"[/\\;]", path)


def keep_sockets_apart(head: Head, backend: Backend) -> None:
    """Raises: Refusal, of a socket in whose messages any response can be named."""
    if not backend.sees_callers and speaks_of_responses(head):
        raise _not_passed_on()


def is_kept_apart(head: Head, backend: Backend, collection: str) -> bool:
    """Whether a request may be passed on only if its body is `kept_apart`.

    Args:
        collection: Path of `/responses`.

    Raises:
        Refusal: It names a stored response, or could.
    """
    if backend.sees_callers or not speaks_of_responses(head):
        return False
    if head.method != "POST" or head.path not in {f"{collection}/{name}" for name in COMPUTING}:
        raise _not_passed_on()
    return True


def kept_apart(body: bytes) -> Generator[None, None, None]:
    """Raises: Refusal, of a body that goes on from some response, or of which that cannot be said."""
    if (yield from may_name_previous(body)):
        raise invalid(
            "Only responses of this gateway can be gone on from, by a 'previous_response_id' given once.",
            param="previous_response_id",
            code="previous_response_not_found",
        )


def _not_passed_on() -> Refusal:
    return Refusal(Fault.NOT_FOUND, "There is no such path here.")
