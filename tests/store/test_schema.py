"""Files of earlier releases are brought to the tables of this one, whole or not at all, and lose nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway.core.job import Idempotency, Status
from gateway.observe import Observer
from gateway.store.port import QueueLimits
from gateway.store.refused import DatabaseRefused
from gateway.store.sqlite import schema
from gateway.store.sqlite.schema import Migration, Schema
from tests.store.conftest import OpenStore
from tests.store.jobs import NOW, TENANT, new_job

PLENTY = QueueLimits(100, 100)
RELEASED = sorted(Path(__file__).with_name("released").glob("*.sql"))
Put = Callable[[Path], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where `open_store` has its file."""
    return tmp_path / "jobs.db"


@pytest.fixture
def put(path: Path) -> Put:
    """Puts the file of a release there, as its process left it."""

    def put(release: Path) -> None:
        with closing(sqlite3.connect(path)) as raw:
            raw.executescript(release.read_text())
            raw.execute("PRAGMA journal_mode = WAL")
        path.chmod(0o600)

    return put


def number_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as raw:
        return int(raw.execute("PRAGMA user_version").fetchone()[0])


def later(step: str, *, text: str | None = None) -> Schema:
    """A release after this one: with a column more, and a step to it."""
    now = schema.CURRENT
    table = "    body  TEXT,\n    CHECK ((webhook IS NULL)"
    new = now.text.replace("    CHECK ((webhook IS NULL)", table) if text is None else text
    return Schema(new, (*now.migrations, Migration(now.number + 1, step)))


ADD_BODY = "ALTER TABLE call ADD COLUMN body TEXT;"


@pytest.mark.parametrize("release", RELEASED, ids=lambda path: path.stem)
async def test_the_file_of_every_release_is_opened_with_all_that_is_in_it(
    release: Path, put: Put, open_store: OpenStore
) -> None:
    put(release)
    store = await open_store()
    for status in (Status.COMPLETED, Status.FAILED, Status.INCOMPLETE, Status.CANCELLED):
        job = await store.find(status, TENANT, now_ms=NOW + 2000)
        assert job is not None
        assert (job.status, job.next_seq, job.final) == (
            status,
            5,
            b'{"id":"%b","output":[]}' % status.encode(),
        )
        page = await store.page(status, TENANT, after=-1, bytes_max=2**20, now_ms=NOW + 2000)
        assert page is not None
        assert (page.events.count(b"sequence_number"), page.is_end) == (5, True)
    [named] = await store.turns_with(["fc_1"], TENANT, now_ms=NOW + 2000, bytes_max=2**20)
    assert named.final == b'{"id":"completed","output":[]}'
    assert sum(each.count for each in await store.outbox.lane_backlogs()) == 5
    repeated = await store.repeated(TENANT, Idempotency("key", b"asked"), now_ms=NOW + 2000)
    assert repeated == "waits"
    (work,) = await store.claim(9, attempts_max=2, now_ms=NOW + 2000)
    assert (work.id, [turn.final for turn in work.turns]) == ("waits", [named.final])
    assert work.call.sealed is not None
    running = await store.find("runs", TENANT, now_ms=NOW + 2000)
    assert running is not None
    assert (running.status, running.next_seq) == (Status.IN_PROGRESS, 5)


def test_the_tables_are_those_of_a_release_or_have_a_number_of_their_own(path: Path, put: Put) -> None:
    """Tables changed? Write the step to them: gateway/store/sqlite/sql/migrations/README.md."""
    numbers = {}
    for release in RELEASED:
        path.unlink(missing_ok=True)
        put(release)
        with closing(sqlite3.connect(path)) as raw:
            numbers[number_in(path)] = schema.parts_of(raw)
    assert set(range(1, max(numbers) + 1)) <= numbers.keys()
    assert numbers.get(schema.CURRENT.number, schema.CURRENT.parts) == schema.CURRENT.parts
    assert [step.number for step in schema.CURRENT.migrations] == list(range(2, schema.CURRENT.number + 1))
    assert schema.CURRENT.number - max(numbers) in (0, 1), "one step for a release"


@pytest.mark.parametrize("release", RELEASED, ids=lambda path: path.stem)
async def test_a_step_is_taken_once_and_told(
    release: Path,
    put: Put,
    path: Path,
    open_store: OpenStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(release)
    monkeypatch.setattr(schema, "CURRENT", later(ADD_BODY))
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(Observer, "store_upgraded", lambda _, was, to: told.append((was, to)))
    was = number_in(path)
    for _ in range(2):
        store = await open_store()
        assert await store.find("waits", TENANT, now_ms=NOW) is not None
        await store.close()
    assert told == [(was, schema.CURRENT.number)]
    assert number_in(path) == schema.CURRENT.number
    store = await open_store()
    await store.create(new_job("new"), PLENTY)


@pytest.mark.parametrize(
    ("step", "text", "reason"),
    [
        (ADD_BODY + "UPDATE call SET nowhere = 1;", None, "cannot be used: no such column: nowhere"),
        ("ALTER TABLE call ADD COLUMN other TEXT;", None, "unreleased version"),
        ("DELETE FROM job WHERE id = 'completed';", schema.CURRENT.text, "unreleased version"),
    ],
    ids=["a step that fails", "other tables than a new file has", "rows that refer to nothing"],
)
async def test_a_step_that_does_not_lead_to_our_tables_leaves_the_file_as_it_was(
    put: Put,
    path: Path,
    open_store: OpenStore,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    text: str | None,
    reason: str,
) -> None:
    put(RELEASED[-1])
    before = number_in(path)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "CURRENT", later(step, text=text))
        with pytest.raises(DatabaseRefused, match=reason):
            await open_store()
    assert number_in(path) == before
    store = await open_store()
    assert await store.find("completed", TENANT, now_ms=NOW) is not None


async def test_the_release_before_refuses_a_file_that_was_upgraded_and_says_what_to_do(
    put: Put, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(RELEASED[-1])
    with monkeypatch.context() as patched:
        patched.setattr(schema, "CURRENT", later(ADD_BODY))
        await (await open_store()).close()
    with pytest.raises(DatabaseRefused, match=r"newer version .*restore the backup from before the upgrade"):
        await open_store()
