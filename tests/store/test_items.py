"""What every store must find by the id of an item: its caller's newest response that has it, no other's."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.config import StoreSettings
from gateway.core.job import NewJob, Outcome, Status, StoreUnavailable, TooMuchNamed
from gateway.core.reason import Reason
from gateway.observe import Observer
from gateway.store.port import JobStore, QueueLimits
from gateway.store.sqlite.store import SqliteStore
from gateway.wire.item_ids import FIRST_INPUT, FIRST_OUTPUT, id_of
from gateway.wire.sse import encode
from tests.store.jobs import NOW, TENANT, new_job

EXPIRY = NOW + 600_000
OTHER = b"o" * 32
PLENTY = QueueLimits(10_000, 10_000)
OURS = "resp_" + "ab12" * 12


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(StoreSettings(database=tmp_path / "test.db"), Observer())
    yield opened
    await opened.close()


def job(name: str, *item_ids: str, **changes: Any) -> NewJob:
    return new_job(name, item_ids=item_ids, **changes)


async def ended(store: JobStore, new: NewJob, *item_ids: str, expires_at_ms: int = EXPIRY) -> None:
    await store.create(new, PLENTY)
    [claim] = await store.claim(1, attempts_max=2, now_ms=NOW)
    assert claim.id == new.id
    final = b'{"final":"%b"}' % new.id.encode()
    events = encode("response.completed", b"{}")
    outcome = Outcome(Status.COMPLETED, final, 2, events, 1, None, Reason.ENDED, item_ids)
    await store.finish(claim, outcome, now_ms=NOW, expires_at_ms=expires_at_ms)


async def with_items(
    store: JobStore, *item_ids: str, tenant: bytes = TENANT, now_ms: int = NOW, bytes_max: int = 2**20
) -> list[tuple[str, bool, bool]]:
    """The responses that are found, and of which of their parts there is something."""
    turns = await store.turns_with(item_ids, tenant, now_ms=now_ms, bytes_max=bytes_max)
    return [(turn.response_id, bool(turn.input), bool(turn.final)) for turn in turns]


async def test_an_item_is_found_in_the_input_or_the_output_that_it_is_in(store: JobStore) -> None:
    await ended(store, job("a", "msg_in"), "msg_out")
    assert await with_items(store, "msg_in") == [("a", True, False)]
    assert await with_items(store, "msg_out") == [("a", False, True)]
    assert await with_items(store, "msg_out", "msg_in", "msg_gone") == [("a", True, True)]
    assert await with_items(store, "msg_gone") == []
    assert await with_items(store) == []


async def test_a_made_up_id_is_found_without_having_been_noted(store: JobStore) -> None:
    await ended(store, job(OURS))
    assert await with_items(store, id_of({}, OURS, FIRST_INPUT + 3)) == [(OURS, True, False)]
    assert await with_items(store, id_of({}, OURS, FIRST_OUTPUT)) == [(OURS, False, True)]
    assert await with_items(store, id_of({}, "resp_" + "ab13" * 12, FIRST_OUTPUT)) == []
    assert await with_items(store, id_of({}, OURS, FIRST_OUTPUT), tenant=OTHER) == []


async def test_the_input_of_a_running_response_is_found(store: JobStore) -> None:
    await store.create(job("a", "msg_in"), PLENTY)
    assert await with_items(store, "msg_in") == [("a", True, False)]


async def test_a_recorded_response_has_items_like_any_other(store: JobStore) -> None:
    turn = job("a", "msg_in", is_background=False, events=b"", next_seq=0)
    await store.record(
        turn, Status.COMPLETED, b"{}", finished_at_ms=NOW, expires_at_ms=EXPIRY, item_ids=("msg_out",)
    )
    assert await with_items(store, "msg_out", "msg_in") == [("a", True, True)]


async def test_of_several_responses_that_have_an_item_the_newest_is_found(store: JobStore) -> None:
    for name in ("a", "b", "c"):
        await ended(store, job(name, "msg_1"), f"msg_of_{name}")
    assert await with_items(store, "msg_1") == [("c", True, False)]
    assert await with_items(store, "msg_of_a", "msg_1", "msg_of_b") == [
        ("c", True, False),
        ("b", False, True),
        ("a", False, True),
    ]
    await store.delete("c", TENANT, now_ms=NOW)
    assert await with_items(store, "msg_1") == [("b", True, False)]


async def test_nobody_finds_the_items_of_another_tenant(store: JobStore) -> None:
    await ended(store, job("mine", "msg_1", "msg_mine"))
    await ended(store, job("theirs", "msg_1", tenant=OTHER), "msg_theirs")
    assert await with_items(store, "msg_1", "msg_mine", "msg_theirs") == [("mine", True, False)]
    assert await with_items(store, "msg_1", "msg_mine", "msg_theirs", tenant=OTHER) == [
        ("theirs", True, True)
    ]


async def test_what_has_expired_or_was_deleted_is_not_found(store: JobStore) -> None:
    await ended(store, job("a", "msg_a"))
    await ended(store, job(OURS))
    made_up = id_of({}, OURS, FIRST_INPUT)
    assert len(await with_items(store, "msg_a", made_up, now_ms=EXPIRY - 1)) == 2
    assert await with_items(store, "msg_a", made_up, now_ms=EXPIRY) == []
    await store.delete("a", TENANT, now_ms=NOW)
    await store.delete(OURS, TENANT, now_ms=NOW)
    assert await with_items(store, "msg_a", made_up) == []


async def test_items_of_earlier_turns_are_found_for_as_long_as_a_later_one_is_shown(store: JobStore) -> None:
    await ended(store, job("first", "msg_first"))
    await ended(store, job("second", previous_id="first"))
    await ended(store, job("third", previous_id="second"), expires_at_ms=EXPIRY + 1000)
    await store.delete("first", TENANT, now_ms=NOW)
    assert await with_items(store, "msg_first", now_ms=EXPIRY + 500) == [("first", True, False)]
    await store.delete("third", TENANT, now_ms=EXPIRY + 500)
    assert await with_items(store, "msg_first", now_ms=EXPIRY + 500) == []


async def test_no_more_is_read_for_a_request_than_it_may_cost(store: JobStore) -> None:
    for name in ("a", "b"):
        await ended(store, job(name, f"msg_{name}", input=b'"%b"' % (b"x" * 998)), f"out_{name}")
    assert len(await with_items(store, "msg_a", "msg_b", bytes_max=2000)) == 2
    with pytest.raises(TooMuchNamed):
        await with_items(store, "msg_a", "msg_b", bytes_max=1999)
    assert len(await with_items(store, "msg_a", "out_b", bytes_max=1100)) == 2


async def test_what_was_noted_goes_with_its_response(store: SqliteStore, tmp_path: Path) -> None:
    await ended(store, job("a", "msg_in"), "msg_out")
    await store.delete("a", TENANT, now_ms=NOW)
    assert await store.sweep(now_ms=NOW) == 1
    with closing(sqlite3.connect(tmp_path / "test.db")) as file:
        assert file.execute("SELECT count(*) FROM named").fetchone() == (0,)


async def test_plain_responses_leave_room_for_those_in_the_background(tmp_path: Path) -> None:
    settings = StoreSettings(database=tmp_path / "small.db", database_bytes_max=2 * 2**20)
    store = await SqliteStore.open(settings, Observer())

    async def record_many() -> None:
        for number in range(100):
            turn = job(f"plain{number}", input=b"x" * 2**16, is_background=False, events=b"", next_seq=0)
            await store.record(turn, Status.COMPLETED, b"{}", finished_at_ms=NOW, expires_at_ms=EXPIRY)

    try:
        with pytest.raises(StoreUnavailable):
            await record_many()
        await store.create(job("background", input=b"x" * 2**16), PLENTY)
        assert await store.find("background", TENANT, now_ms=NOW) is not None
    finally:
        await store.close()
