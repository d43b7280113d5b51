"""Thoughts that go to the client sealed, and come back: the `encrypted_content` of chat backends' reasoning.

What is sealed is all of a reasoning item that its client need not send back. How it is sealed is no matter of
the protocol; here is what the text looks like, and what is in it.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

import orjson

from gateway.wire.errors import Refusal, invalid

Item = dict[str, Any]

MARK: Final = "bbt1."
"""Prefix of a sealed text. The key's id, a dot and the sealed bytes follow."""

INCLUDE: Final = "reasoning.encrypted_content"
FIELD: Final = "encrypted_content"

_OPEN_FIELDS = frozenset({"type", "id", "status", "summary", FIELD})
"""Fields that a client sends back, or that say nothing."""


def are_wanted(request: dict[str, Any]) -> bool:
    """True if a request asks for thoughts that can be sent back."""
    return INCLUDE in (request.get("include") or [])


def text_of(key_id: str, sealed: bytes) -> str:
    """The `encrypted_content` for what was sealed by a key."""
    return f"{MARK}{key_id}.{base64.urlsafe_b64encode(sealed).decode()}"


def parts_of(text: str) -> tuple[str, bytes] | None:
    """The key's id and what it sealed; None if that cannot be read."""
    key_id, dot, encoded = text.removeprefix(MARK).rpartition(".")
    try:
        return (key_id, base64.b64decode(encoded, altchars=b"-_", validate=True)) if dot else None
    except (binascii.Error, ValueError):
        return None


def to_seal(item: Item) -> bytes:
    """The part of a reasoning item that is sealed."""
    return orjson.dumps({name: value for name, value in item.items() if name not in _OPEN_FIELDS})


def sealed_in(item: Any) -> str | None:
    """The sealed text of an input item, if it was sealed here."""
    if not isinstance(item, dict) or item.get("type") != "reasoning":
        return None
    text = item.get(FIELD)
    return text if isinstance(text, str) and text.startswith(MARK) else None


def is_whole(item: Item) -> bool:
    """True if a reasoning item needs nothing of what was sealed."""
    return bool(item.get("content"))


def opened(item: Item, sealed: bytes | None) -> Item:
    """A reasoning item with what was sealed of it. What its client sent with it stays.

    Args:
        sealed: What `to_seal` gave; None if it is not needed.
    """
    given = {name: value for name, value in item.items() if value is not None and name != FIELD}
    if sealed is None:
        return given
    given.pop("content", None)
    return {**orjson.loads(sealed), **given}


def unreadable(text: str, param: str) -> Refusal:
    """The refusal of a seal that was changed, is for another tenant, or whose key is gone."""
    return invalid(
        f"The encrypted content {text[:8]}...{text[-4:]} could not be verified. "
        "Reason: Encrypted content could not be decrypted or parsed.",
        param=param,
        code="invalid_encrypted_content",
    )
