"""Three ways to show one background response.

`openai` is the API as the official clients know it. The other two are what two products document for their
own background mode; each differs in a few places only, and all of them are here.

- `mka1`: `response.queued` comes before `response.created`; any background response can be streamed by GET;
  once it has ended, the stream is its terminal event alone (or what follows `starting_after`, if given).
- `pharia`: creating answers 202 with a handle `req_…`, `in_progress` at once; the finished object shows its
  permanent `resp_…` id, and both ids work everywhere; a failed one has `error.type` and a usage of zeros.
  Events embed the Response in the same form.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

import orjson

from gateway.wire import events
from gateway.wire.sse import data_of, split_frames
from gateway.wire.usage import zeros

_GUARDRAIL_CODES = frozenset(
    {"bio_policy", "content_filter", "image_content_policy_violation", "misalignment_policy_violation"}
)
_GUARDRAIL_WORDS = re.compile(
    r"guardrail|moderation|content[ _-](filter|policy|management policy)|safety (filter|system|policy|check)",
    re.IGNORECASE,
)
"""Words in a refusal that mean a guardrail. Not `safety` alone: `safety_identifier` is a field."""

_EMBEDS_RESPONSE = tuple(f"event: {name}\n".encode() for name in sorted(events.LIFECYCLE | events.TERMINAL))


class Dialect(StrEnum):
    OPENAI = "openai"
    MKA1 = "mka1"
    PHARIA = "pharia"

    @property
    def accepted_status(self) -> int:
        """HTTP status of a created background response."""
        return 202 if self is Dialect.PHARIA else 200

    @property
    def streams_any(self) -> bool:
        """True if a response can be streamed by GET that was not created with `stream: true`."""
        return self is Dialect.MKA1

    @property
    def opening(self) -> tuple[str, str]:
        """The first two events of a background response."""
        if self is Dialect.MKA1:
            return ("response.queued", "response.created")
        return ("response.created", "response.queued")

    @property
    def replays_ended(self) -> bool:
        """True if a stream of an ended response starts at its beginning; else it is its terminal event."""
        return self is not Dialect.MKA1

    def stored_id(self, shown_id: str) -> str:
        """The id of a response, whichever of its names a client used."""
        if self is Dialect.PHARIA and shown_id.startswith("req_"):
            return f"resp_{shown_id.removeprefix('req_')}"
        return shown_id

    def shown(self, response: bytes) -> bytes:
        """A Response as its client sees it."""
        return orjson.dumps(_as_pharia(orjson.loads(response))) if self is Dialect.PHARIA else response

    def shown_events(self, block: bytes) -> bytes:
        """Whole events as their reader sees them."""
        if self is not Dialect.PHARIA:
            return block
        return b"".join(_event_as_pharia(frame) for frame in split_frames(block))


def _as_pharia(response: dict[str, Any]) -> dict[str, Any]:
    if response["status"] == "queued":
        response["status"] = "in_progress"
    if response["status"] not in ("completed", "incomplete"):
        response["id"] = f"req_{response['id'].removeprefix('resp_')}"
    error = response.get("error")
    if response["status"] == "failed" and error:
        response["error"] = {"type": _error_type(error), "message": error["message"], "code": error["code"]}
        response["usage"] = response["usage"] or zeros()
    return response


def _event_as_pharia(frame: bytes) -> bytes:
    if not frame.startswith(_EMBEDS_RESPONSE):
        return frame
    event: events.Event = orjson.loads(data_of(frame))
    event["response"] = _as_pharia(event["response"])
    return events.frame(event, event["sequence_number"])


def _error_type(error: dict[str, str]) -> str:
    is_guardrail = error["code"] in _GUARDRAIL_CODES or (
        error["code"] == "invalid_prompt" and _GUARDRAIL_WORDS.search(error["message"]) is not None
    )
    return "guardrail_violation" if is_guardrail else "server_error"
