"""The head of an answer as the fast lane sends it: by the same rules as the other lane, and made once for
each head that a backend sends again."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final

from aiohttp.helpers import rfc822_formatted_time
from multidict import CIMultiDict

from gateway.api.http.cors import Cors
from gateway.core.quick import AnswerHead
from gateway.wire.http.head import Head
from gateway.wire.http.headers import to_client
from gateway.wire.http.messages import framed, phrase, serialised

_ID: Final = str(uuid.uuid4())
"""Stands for the request's id. No backend knows it, or a header could have it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer's head: pieces between which an id, perhaps a date, and the end are missing."""

    before: bytes
    after: bytes
    is_dated: bool
    is_chunked: bool

    def told(self, request_id: str, *, closes: bool) -> bytes:
        """All of it."""
        end = b"Connection: close\r\n\r\n" if closes else b"\r\n"
        if not self.is_dated:
            end = f"Date: {rfc822_formatted_time()}\r\n".encode() + end
        return b"%b%b%b%b" % (self.before, request_id.encode(), self.after, end)


class Shows:
    """Makes them."""

    def __init__(self, cors: Cors) -> None:
        self._cors = cors

    def shown(self, request: Head, answer: AnswerHead, *, is_settled: bool) -> Shown:
        """
        Args:
            is_settled: The policy for pages may concern the answer.
        """
        if request.method != "HEAD" and isinstance(found := answer.shown.get(is_settled), Shown):
            return found
        headers, is_chunked = framed(request.method, answer.status, to_client(answer.headers, request_id=_ID))
        is_dated = any(name.lower() == "date" for name, _ in headers)
        if is_settled:
            settled = CIMultiDict(headers)
            self._cors.settle(request, settled)
            headers = list(settled.items())
        told = serialised(f"HTTP/1.1 {answer.status} {phrase(answer.status, answer.reason)}", headers)
        before, _, after = told.partition(_ID.encode())
        shown = Shown(before, after, is_dated, is_chunked)
        if request.method != "HEAD" and not self._cors.is_on:
            answer.shown[is_settled] = shown
        return shown
