"""What the doctor finds: one line each, with what to do about it, and the setting that does it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How a finding is meant."""

    OK = "ok"
    NOTE = "note"
    """Works; it could be better, or a setting could say it."""
    WRONG = "wrong"
    """Does not work, or will not."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One of them.

    Attributes:
        about: `backend NAME`, `store`, `clock`, …
        check: What was looked at.
        found: What is so.
        advice: What to change; "" if nothing.
        settings: By name in the settings' section, to be pasted there: `api`, `store.database_bytes_max`.
    """

    about: str
    check: str
    level: Level
    found: str
    advice: str = ""
    settings: tuple[tuple[str, Any], ...] = ()
