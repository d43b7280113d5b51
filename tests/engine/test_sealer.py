"""Credentials that outlive the process: sealed with the job, opened for its run, gone with its end."""

from __future__ import annotations

import base64
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.core.job import Sealed
from gateway.core.reason import Reason
from gateway.core.upstream import UpstreamFailed
from gateway.engine.credentials import CallerHeaders, Credentials, SealingKeyMissing
from gateway.engine.sealer import Sealer, Unsealable
from gateway.wire.failures import failure
from gateway.wire.http.head import Credential
from tests.store.jobs import new_job
from tests.support.house import ALL, Build, Hold, House, frames

KEY = Credential("authorization", "Bearer sk-canary-51ab")
NEW, OLD = b"n" * 32, b"o" * 32
TENANT = b"t" * 32


def keys(**named: bytes) -> dict[str, Any]:
    """Settings; the first key is the one that seals."""
    items = (f"{name}:{base64.b64encode(key).decode()}" for name, key in named.items())
    return {"sealing_keys": tuple(map(SecretStr, items))}


def secrets_in(house: House) -> list[tuple[str, str, bytes]]:
    """The sealed rows of the file: job, key and what is sealed."""
    with sqlite3.connect(house.settings.store.database) as raw:
        found = raw.execute(
            "SELECT job.id, key_id, sealed FROM secret JOIN job ON job.pk = secret.job ORDER BY job.pk"
        ).fetchall()
    raw.close()
    return found


def on_disk(house: House) -> bytes:
    database: Path = house.settings.store.database
    return b"".join(path.read_bytes() for path in database.parent.glob(f"{database.name}*"))


# -- the seal itself


def test_what_is_sealed_opens_for_the_same_owner_of_the_same_tenant_only() -> None:
    sealer = Sealer({"new": NEW, "old": OLD})
    sealed = sealer.seal(b"text", owner="resp_1", tenant=TENANT)
    assert sealed.key_id == "new"
    assert b"text" not in sealed.text
    assert sealer.open(sealed, owner="resp_1", tenant=TENANT) == b"text"
    wrong: list[tuple[Sealed, str, bytes]] = [
        (sealed, "resp_2", TENANT),
        (sealed, "resp_1", b"T" * 32),
        (Sealed("old", sealed.text), "resp_1", TENANT),
        (Sealed("new", sealed.text[:-1]), "resp_1", TENANT),
        (Sealed("new", b""), "resp_1", TENANT),
        *((Sealed("new", _flipped(sealed.text, bit)), "resp_1", TENANT) for bit in range(0, 256, 7)),
    ]
    for text, owner, tenant in wrong:
        with pytest.raises(Unsealable, match="it does not open with the key"):
            sealer.open(text, owner=owner, tenant=tenant)
    with pytest.raises(Unsealable, match="sealed with the key 'lost', which is not configured any more"):
        sealer.open(Sealed("lost", sealed.text), owner="resp_1", tenant=TENANT)


def test_the_same_text_is_never_sealed_alike() -> None:
    sealer = Sealer({"new": NEW})
    sealings = {sealer.seal(b"text", owner="resp_1", tenant=TENANT).text for _ in range(1000)}
    assert len({text[:12] for text in sealings}) == 1000


def _flipped(text: bytes, bit: int) -> bytes:
    place = bit // 8 % len(text)
    return text[:place] + bytes([text[place] ^ (1 << bit % 8)]) + text[place + 1 :]


# -- jobs


@pytest.mark.parametrize("sealer", [None, Sealer({"new": NEW})])
@pytest.mark.parametrize("others", [{}, {"x-held": "1"}])
def test_nothing_is_in_memory_only_for_a_job_that_another_gateway_may_end(
    sealer: Sealer | None, others: dict[str, str]
) -> None:
    """It tells nobody."""
    job = new_job("resp_1")
    headers = CallerHeaders(KEY, others)
    shared = Credentials(sealer, are_shared=True)
    sealed = shared.keep(job, headers, may_seal=False)
    assert (sealed is not None) is (sealer is not None and bool(others))
    assert not shared.is_in_memory_only("resp_1")
    assert shared._held == {}
    alone = Credentials(sealer)
    assert alone.keep(job, headers, may_seal=False) is None
    assert alone.is_in_memory_only("resp_1")
    alone.forget("resp_1")
    assert alone._held == {}


async def test_a_job_runs_after_a_restart_with_the_credential_and_the_private_headers(build: Build) -> None:
    first = await build(credentials=keys(new=NEW), is_started=False)
    waiting = await first.submit(credential=KEY)
    await first.start()
    await first.observer.until(waiting, "finished")
    hold = Hold()
    first.backend.script = [frames(0, 4), hold]
    running = await first.submit(credential=KEY)
    await hold.here()
    assert [(job, key) for job, key, _ in secrets_in(first)] == [(running, "new")]
    assert b"sk-canary-51ab" not in on_disk(first)
    await first.kill()
    first.backend.script = ALL
    second = await build(credentials=keys(new=NEW))
    assert (await second.ended(running))["status"] == "completed"
    for call in second.backend.calls_of(running):
        assert call.credential == KEY
        assert call.headers["x-held"] == "1"
    assert secrets_in(second) == []
    assert b"sk-canary-51ab" not in on_disk(second)


async def test_every_end_takes_the_secret_with_it(build: Build) -> None:
    house = await build(credentials=keys(new=NEW), background={"deadline_s": 60})
    assert (await house.ended(await house.submit(credential=KEY)))["status"] == "completed"
    house.backend.script = [UpstreamFailed(failure("No."), Reason.REFUSED, 400)]
    assert (await house.ended(await house.submit(credential=KEY)))["status"] == "failed"
    assert secrets_in(house) == []
    for end in ("cancel", "delete", "deadline"):
        hold = Hold()
        house.backend.script = [frames(0, 4), hold]
        response_id = await house.submit(credential=KEY)
        await hold.here()
        assert len(secrets_in(house)) == 1
        match end:
            case "cancel":
                await house.cancel(response_id)
            case "delete":
                await house.jobs.delete(await house.job(response_id))
            case "deadline":
                house.clock.advance(61)
                await house.tick()
        assert secrets_in(house) == [], end


async def test_keys_are_changed_without_losing_a_job(build: Build) -> None:
    first = await build(credentials=keys(old=OLD), is_started=False)
    early = await first.submit(credential=KEY)
    await first.kill()
    second = await build(credentials=keys(new=NEW, old=OLD), is_started=False)
    late = await second.submit(credential=KEY)
    assert [(job, key) for job, key, _ in secrets_in(second)] == [(early, "old"), (late, "new")]
    await second.start()
    for job in (early, late):
        assert (await second.ended(job))["status"] == "completed"
        assert second.backend.calls_of(job)[0].credential == KEY


@pytest.mark.parametrize("left", [{}, {"new": NEW}])
async def test_a_start_without_a_key_that_is_needed_is_refused_and_names_it(
    build: Build, left: dict[str, bytes]
) -> None:
    first = await build(credentials=keys(old=OLD), is_started=False)
    for _ in range(2):
        await first.submit(credential=KEY)
    await first.kill()
    second = await build(credentials=keys(**left), is_started=False)
    with pytest.raises(SealingKeyMissing, match=r"not configured: 'old' \(2\)\. .*missing_key: fail_jobs"):
        await second.start()
    assert len(secrets_in(second)) == 2


@pytest.mark.parametrize("left", [{}, {"new": NEW}])
async def test_the_way_out_fails_the_jobs_that_need_the_key_and_no_others(
    build: Build, left: dict[str, bytes]
) -> None:
    first = await build(credentials=keys(old=OLD), is_started=False)
    lost = await first.submit(credential=KEY)
    await first.kill()
    second = await build(credentials={**keys(**left), "missing_key": "fail_jobs"}, is_started=False)
    fine = await second.submit(credential=KEY)
    await second.start()
    response = await second.ended(lost)
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert response["error"]["message"] == (
        "The caller's credential cannot be read: it was sealed with the key 'old', "
        "which is not configured any more."
    )
    assert second.backend.calls_of(lost) == []
    assert "credential_unreadable" in second.observer.of(lost)
    assert (await second.ended(fine))["status"] == "completed"
    assert secrets_in(second) == []


async def test_a_secret_that_was_put_with_another_job_is_not_used(build: Build) -> None:
    first = await build(credentials=keys(new=NEW), is_started=False)
    mine = await first.submit(credential=KEY)
    theirs = await first.submit(tenant=b"o" * 32, credential=Credential("api-key", "theirs"))
    await first.kill()
    with sqlite3.connect(first.settings.store.database) as raw:
        (one, ones), (other, others) = raw.execute("SELECT job, sealed FROM secret").fetchall()
        raw.executemany("UPDATE secret SET sealed = ? WHERE job = ?", [(others, one), (ones, other)])
    raw.close()
    second = await build(credentials=keys(new=NEW))
    assert "it does not open with the key 'new'" in (await second.ended(mine))["error"]["message"]
    await second.observer.until(theirs, "finished")
    assert second.backend.calls == []


async def test_with_a_key_of_the_gateways_own_nothing_is_stored(build: Build) -> None:
    house = await build(credentials=keys(new=NEW), is_started=False)
    house.backend.sees_callers = False
    response_id = await house.submit(credential=KEY)
    assert secrets_in(house) == []
    await house.start()
    assert (await house.ended(response_id))["status"] == "completed"


async def test_without_a_sealing_key_nothing_is_stored(build: Build) -> None:
    house = await build(is_started=False)
    await house.submit(credential=KEY)
    assert secrets_in(house) == []
    assert b"sk-canary-51ab" not in on_disk(house)
