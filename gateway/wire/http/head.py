"""A request without its body, as any shell can read it, and the one credential in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from gateway.wire.errors import Fault, Refusal, invalid

CREDENTIALS = frozenset({"authorization", "api-key", "x-api-key"})

# aiohttp refuses control characters in what it sends, and cannot send the surrogates that stand
# for bytes that are not UTF-8: one such value would fail the whole message with a 500.
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


class Headers:
    """The fields of a message, in their order and spelling; bytes that are not UTF-8 are surrogates."""

    __slots__ = ("_values", "pairs")

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.pairs = tuple(pairs)
        self._values: dict[str, list[str]] = {}
        for name, value in self.pairs:
            self._values.setdefault(name.lower(), []).append(value)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def all(self, name: str) -> Sequence[str]:
        """The values of a field, whose name is given in lower case."""
        return self._values.get(name, ())

    def first(self, name: str) -> str | None:
        return self._values[name][0] if name in self._values else None

    def listed(self, name: str) -> list[str]:
        """The members of a field that is a list (RFC 9110 §5.6.1), in lower case."""
        return [each.strip() for each in ",".join(self.all(name)).lower().split(",")]


@dataclass(frozen=True, slots=True)
class Credential:
    """A header that proves who the caller is. Never logged, never on disk in clear."""

    name: str
    value: str = field(repr=False)


@dataclass(frozen=True)
class Head:
    """What is known of a request before its body.

    Attributes:
        target: Raw path and query.
        version: Of HTTP: (1, 1).
        has_body: A body follows, be it empty.
        peer: Address of the other end of the connection, if it has one.
    """

    method: str
    target: str
    version: tuple[int, int]
    headers: Headers
    has_body: bool = False
    peer: str | None = None

    @property
    def path(self) -> str:
        """As it was sent, without the query."""
        return self.target.partition("?")[0]

    @property
    def has_expectation(self) -> bool:
        """Whether it waits to be asked for its body (RFC 9110 §10.1.1): nothing else may be expected here."""
        return self.version == (1, 1) and "expect" in self.headers

    @property
    def is_json(self) -> bool:
        """Whether the body is said to be JSON."""
        kind = self.headers.first("content-type") or ""
        return kind.partition(";")[0].strip().lower() == "application/json"

    @cached_property
    def credential(self) -> Credential | None:
        """The caller's credential, its name in lower case.

        Raises:
            Refusal: More than one. Which of them counts would be our guess, and another server's guess
                may differ: one caller could then act under two names. Or one that cannot be sent on.
        """
        found = [Credential(name, value) for name in CREDENTIALS for value in self.headers.all(name)]
        if len(found) > 1:
            raise invalid("Send one credential only: Authorization, api-key or x-api-key, once.")
        if found and not is_sendable(found[0].value):
            message = "The credential is not text."
            raise Refusal(Fault.UNAUTHENTICATED, message, code="invalid_api_key")
        return found[0] if found else None


def is_target(text: str) -> bool:
    """Whether this can be the target of a request: `@host/`, `http://host/` and the like would name another
    server; a fragment would be cut off in silence."""
    return text.startswith("/") and "#" not in text and is_sendable(text)


def is_sendable(text: str) -> bool:
    """Whether this text can be put on the wire, in a header, a status line or a target."""
    return (text.isascii() and text.isprintable()) or not _UNSENDABLE.search(text)
