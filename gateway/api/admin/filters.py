"""Which jobs a query or an action is about: words of a caller, checked, made into what the engine asks."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.core.job import LIVE, Status
from gateway.engine.operators import Wanted
from gateway.wire.errors import invalid

NAMES = ("state", "model", "backend", "tenant", "error", "id", "older", "newer")

_LIVE = "live"
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)?\Z")
_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_HEX = re.compile(r"[0-9a-f]{1,64}\Z")
_ID = re.compile(r"[A-Za-z0-9_-]{1,80}\Z")
_TEXT_MAX = 256


def wanted(given: Mapping[str, str], now_ms: int) -> Wanted:
    """Args: given: By `NAMES`; what is empty is left out. Raises: Refusal."""
    said = {name: value.strip() for name, value in given.items() if value.strip()}
    for name in said:
        if name not in NAMES:
            raise invalid(f"Unknown filter; there are {', '.join(NAMES)}.", param=name)
        if len(said[name]) > _TEXT_MAX:
            raise invalid(f"{name} is longer than {_TEXT_MAX} characters.", param=name)
    older, newer = said.get("older"), said.get("newer")
    return Wanted(
        statuses=_statuses(said["state"]) if "state" in said else None,
        backend=said.get("backend"),
        model=said.get("model"),
        tenant=_matching("tenant", said.get("tenant", "").lower(), _HEX, "hex digits"),
        error=said.get("error"),
        id=_matching("id", said.get("id", ""), _ID, "the beginning of an id"),
        created_before_ms=now_ms - span_ms("older", older) if older else None,
        created_since_ms=now_ms - span_ms("newer", newer) if newer else None,
    )


def span_ms(name: str, text: str) -> int:
    """`90`, `90s`, `5m`, `1.5h`, `2d`; without a unit it is seconds. Raises: Refusal."""
    if not (found := _SPAN.match(text)):
        raise invalid(f"{name} must be a length of time: 90s, 5m, 2h or 1d.", param=name)
    number, unit = found.groups()
    return int(float(number) * _UNITS[unit or "s"])


def whole(name: str, text: str, lowest: int, highest: int) -> int:
    """A whole number. Raises: Refusal."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if not lowest <= number <= highest:
        raise invalid(f"{name} must be a whole number from {lowest} to {highest}.", param=name)
    return number


def _statuses(text: str) -> frozenset[Status]:
    found: set[Status] = set()
    for word in text.split(","):
        if word == _LIVE:
            found |= LIVE
            continue
        try:
            found.add(Status(word.strip()))
        except ValueError:
            words = ", ".join([*Status, _LIVE])
            raise invalid(f"state must be some of {words}, with commas between.", param="state") from None
    return frozenset(found)


def _matching(name: str, text: str, pattern: re.Pattern[str], what: str) -> str | None:
    if not text:
        return None
    if not pattern.match(text):
        raise invalid(f"{name} must be {what}.", param=name)
    return text
