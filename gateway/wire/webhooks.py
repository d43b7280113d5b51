"""Webhooks: the event that tells that a response has ended, its signature, and the URL a caller may name.

An event is made of ids and times alone, so that it can be made again, byte for byte, for every attempt, also
when the response is gone. It is signed as Standard Webhooks says, by that project's own library:
`client.webhooks.unwrap` of the official clients accepts it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from standardwebhooks import Webhook
from yarl import URL

from gateway.wire.errors import Refusal, invalid

REQUEST_PORTS: Final = frozenset({443, 8443})
_VISIBLE: Final = re.compile("[!-~]+")


def event(response_id: str, status: str, ended_at_s: int) -> bytes:
    """The body of a delivery.

    Args:
        ended_at_s: Unix seconds.
    """
    return orjson.dumps(
        {
            "id": f"evt_{_distinct(response_id)}",
            "object": "event",
            "type": f"response.{status}",
            "created_at": ended_at_s,
            "data": {"id": response_id},
        }
    )


def delivery_id(response_id: str) -> str:
    """The `webhook-id`: one for the one event of a response, whoever is told and however often."""
    return f"wh_{_distinct(response_id)}"


def signed_headers(
    response_id: str, body: bytes, secrets: Iterable[str], *, sent_at_s: int
) -> dict[str, str]:
    """The headers of one attempt (Standard Webhooks, "Webhook headers").

    Args:
        secrets: `whsec_…`; each signs, and a receiver looks for a signature by one that it knows.
        sent_at_s: Unix seconds by the wall clock: receivers refuse what is five minutes off.
    """
    sent_at = datetime.fromtimestamp(sent_at_s, UTC)
    named = delivery_id(response_id)
    signatures = [Webhook(secret).sign(named, sent_at, body.decode()) for secret in secrets]
    return {
        "webhook-id": named,
        "webhook-timestamp": str(sent_at_s),
        "webhook-signature": " ".join(signatures),
        "content-type": "application/json",
    }


def requested_url(body: Mapping[str, Any], key: str | None) -> str | None:
    """The URL that a valid create request wants told of its end.

    Where its name leads is judged when it is dialled, and only then: a moment later it may lead elsewhere.

    Args:
        key: Of its `metadata`; None if the settings take no URL from callers.

    Raises:
        Refusal: It is not one that may be told.
    """
    if key is None:
        return None
    text: str | None = (body.get("metadata") or {}).get(key)
    if text is None:
        return None
    try:
        url = URL(text)
    except ValueError:
        raise _not_a_receiver(key) from None
    if url.scheme != "https" or not url.host or url.port not in REQUEST_PORTS:
        raise _not_a_receiver(key)
    if "@" in url.raw_authority or url.fragment or not _VISIBLE.fullmatch(text):
        raise _not_a_receiver(key)
    return text


def _not_a_receiver(key: str) -> Refusal:
    ports = " or ".join(map(str, sorted(REQUEST_PORTS)))
    return invalid(
        f"'metadata.{key}' must be an https:// URL on port {ports}, without a user, password or fragment.",
        param=f"metadata.{key}",
        code="invalid_webhook_url",
    )


def _distinct(response_id: str) -> str:
    """192 random bits: what is made of them is as much one of its kind."""
    return response_id.removeprefix("resp_")
