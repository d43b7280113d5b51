"""One of several gateways that are taken for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.acceptance.harness import Gateway


class Member(Gateway):
    """What it says is heard by all, and what it stores lies in their database."""

    def __init__(self, whole: Gateway, upstream: str, place: Path, *more: Any, **settings: object) -> None:
        super().__init__(upstream, place, *more, **settings)
        self._whole = whole

    def kept_in(self) -> list[str]:
        return []

    def heard(self, line: bytes, fields: dict[str, Any]) -> None:
        super().heard(line, fields)
        self._whole.heard(line, fields)
