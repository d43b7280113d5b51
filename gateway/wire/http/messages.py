"""Heads of messages as they stand on the wire, and how the answer to a request shows where its body ends."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from gateway.wire.http.head import Head, is_sendable

Pairs = list[tuple[str, str]]

_NO_BODY_WITH: Final = frozenset({204, 304, *range(100, 200)})
"""Statuses of answers that have no body (RFC 9110 §6.4.1)."""

_NO_BODY_TO: Final = "HEAD"

_ASK_ONLY: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods whose requests need not say that they have no body (RFC 9110 §8.6)."""


def framed(method: str, status: int, headers: Pairs) -> tuple[Pairs, bool]:
    """The headers of an answer over HTTP/1.1 with what says where it ends; and whether its body is sent in
    chunks."""
    if status in _NO_BODY_WITH:
        return [(name, value) for name, value in headers if name.lower() != "content-length"], False
    if method == _NO_BODY_TO or any(name.lower() == "content-length" for name, _ in headers):
        return headers, False
    return [*headers, ("Transfer-Encoding", "chunked")], True


def may_have_body(method: str, status: int) -> bool:
    """Whether an answer has a body, be it empty."""
    return method != _NO_BODY_TO and status not in _NO_BODY_WITH


def phrase(status: int, said: str | None = None) -> str:
    """What a status is called: as the backend has said, where that can be sent on."""
    if said is not None and is_sendable(said):
        return said
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def sized(head: Head, headers: Pairs) -> Pairs:
    """The headers of a request that goes on; one without a body says so, where it would else be in doubt."""
    if head.has_body or head.method in _ASK_ONLY or "content-length" in head.headers:
        return headers
    return [*headers, ("Content-Length", "0")]


def serialised(first_line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """A head up to the last of its headers, without the empty line that ends it."""
    lines = [first_line, *(f"{name}: {value}" for name, value in headers), ""]
    return "\r\n".join(lines).encode()
