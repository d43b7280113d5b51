"""The moves of a job: one table in code, the same one in the database."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path

import pytest

from gateway.core import job
from gateway.core.job import LIVE, TRANSITIONS, Status

SCHEMA = Path(job.__file__).parent.parent / "store" / "sqlite" / "sql" / "schema.sql"
PAIRS = list(itertools.product(Status, repeat=2))


def test_every_status_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(Status)


def test_nothing_leaves_a_terminal_status() -> None:
    terminal = {Status.COMPLETED, Status.FAILED, Status.INCOMPLETE, Status.CANCELLED}
    assert {status for status in Status if not TRANSITIONS[status]} == terminal
    assert {status for status in Status if status.is_terminal} == terminal


def test_live_is_what_is_not_terminal() -> None:
    assert {Status.QUEUED, Status.IN_PROGRESS} == LIVE


def test_every_live_status_can_be_cancelled_and_can_fail() -> None:
    assert all({Status.CANCELLED, Status.FAILED} <= TRANSITIONS[status] for status in LIVE)


def test_nothing_ends_well_without_having_been_started() -> None:
    assert not {Status.COMPLETED, Status.INCOMPLETE} & TRANSITIONS[Status.QUEUED]


def test_no_move_leads_back() -> None:
    assert all(Status.QUEUED not in moves for moves in TRANSITIONS.values())
    assert all(status not in moves for status, moves in TRANSITIONS.items())


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_database_allows_the_moves_of_the_table_and_no_other(old: Status, new: Status) -> None:
    database = sqlite3.connect(":memory:")
    try:
        database.executescript(SCHEMA.read_text())
        ended = 1 if old.is_terminal else None
        database.execute(
            "INSERT INTO job (id, tenant, backend, priority, status, next_seq, is_background, is_streamed,"
            " is_followable, is_rerunnable,"
            " created_at_ms, deadline_ms, finished_at_ms, expires_at_ms)"
            " VALUES ('resp_1', zeroblob(32), 'default', 1, ?, 2, 1, 0, 0, 0, 0, 0, ?, ?)",
            (old, ended, ended),
        )
        ended = 1 if new.is_terminal else None
        move = ("UPDATE job SET status = ?, finished_at_ms = ?, expires_at_ms = ?", (new, ended, ended))
        if new in TRANSITIONS[old] or new is old:  # the same status again is no move
            database.execute(*move)
        else:
            with pytest.raises(sqlite3.IntegrityError, match="illegal move of a job"):
                database.execute(*move)
    finally:
        database.close()
