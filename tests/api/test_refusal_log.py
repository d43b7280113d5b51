"""Callers that are sent away, in the log: told at once, then counted, however many they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.api.identity import refusal_log
from gateway.api.identity.callers import Caller
from gateway.api.identity.refusal_log import RefusalLog
from gateway.observe import Observer
from gateway.wire.errors import Fault, Refusal

FULL = Refusal(Fault.OVERLOADED, "Too many.", code="rate_limit_exceeded")
STREAMS = Refusal(Fault.OVERLOADED, "Too many.", code="too_many_streams")


class Told(Observer):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str, str | None, int]] = []

    def caller_refused(self, code: str, tenant: str, name: str | None, count: int) -> None:
        self.lines.append((code, tenant, name, count))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What would be done when the time is over, in place of waiting for it."""
    due: list[Callable[[], None]] = []

    class Loop:
        def call_later(self, _delay_s: float, look: Callable[..., None], *args: object) -> None:
            due.append(lambda: look(*args))

    monkeypatch.setattr(asyncio, "get_running_loop", Loop)
    return due


def caller(number: int, name: str | None = None) -> Caller:
    return Caller(number.to_bytes(32, "big"), None, "request", name)


def test_the_first_refusal_is_told_at_once_and_the_others_are_counted(
    looks: list[Callable[[], None]],
) -> None:
    told = Told()
    log = RefusalLog(told)
    for _ in range(1000):
        log.note(caller(1, "team-a"), FULL)
    log.note(caller(1, "team-a"), STREAMS)
    log.note(caller(2), FULL)
    tenant = "00000000"
    assert told.lines == [
        ("rate_limit_exceeded", tenant, "team-a", 1),
        ("too_many_streams", tenant, "team-a", 1),
        ("rate_limit_exceeded", tenant, None, 1),
    ]
    looks.pop(0)()
    assert told.lines[3:] == [("rate_limit_exceeded", tenant, "team-a", 999)]
    looks.pop()()  # nothing came since: the next one is told at once again
    assert len(told.lines) == 4
    log.note(caller(1, "team-a"), FULL)
    assert told.lines[4:] == [("rate_limit_exceeded", tenant, "team-a", 1)]


def test_callers_without_end_are_told_of_together(
    looks: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal_log, "_KNOWN_MAX", 3)
    told = Told()
    log = RefusalLog(told)
    for number in range(100):
        log.note(caller(number, f"team-{number}"), FULL)
    assert [line[2] for line in told.lines] == ["team-0", "team-1", "team-2", None]
    assert told.lines[-1][1] == "others"
    looks[-1]()
    assert told.lines[-1] == ("rate_limit_exceeded", "others", None, 96)
