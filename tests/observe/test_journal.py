"""What happened to the latest jobs."""

from __future__ import annotations

import pytest

from gateway.observe import journal
from gateway.observe.journal import Journal


def test_what_happened_to_a_job_is_told_in_order_with_what_is_known() -> None:
    notes = Journal()
    notes.note("a", "queued", request=None)
    notes.note("a", "called", replica=1)
    notes.note("b", "queued")
    notes.note("a", "completed", reason="upstream_ended")
    assert [(move.to, move.facts) for move in notes.of("a")] == [
        ("queued", {}),
        ("called", {"replica": 1}),
        ("completed", {"reason": "upstream_ended"}),
    ]
    assert notes.latest("a", "replica") == 1
    assert notes.latest("b", "replica") is None
    assert notes.of("unknown") == []


def test_only_the_newest_jobs_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_JOBS_MAX", 2)
    notes = Journal()
    for name in ("a", "b", "c"):
        notes.note(name, "queued")
    assert [bool(notes.of(name)) for name in ("a", "b", "c")] == [False, True, True]


def test_of_a_job_to_which_very_much_happens_the_beginning_and_the_end_stay() -> None:
    notes = Journal()
    for number in range(200):
        notes.note("a", str(number))
    moves = [move.to for move in notes.of("a")]
    assert len(moves) == 40
    assert (moves[0], moves[-1]) == ("0", "199")
