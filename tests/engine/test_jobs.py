"""What is accepted, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.core.job import Status, StoreUnavailable
from gateway.engine.jobs import Repeat, Submission
from gateway.wire.errors import Fault, Refusal
from gateway.wire.http.head import Credential
from tests.support.house import (
    OTHER,
    TENANT,
    Build,
    Wrapped,
)


async def test_a_full_queue_refuses_and_says_when_to_come_back(build: Build) -> None:
    house = await build(background={"queue_max": 2, "queue_per_tenant_max": 1}, is_started=False)
    await house.submit()
    with pytest.raises(Refusal) as own:
        await house.submit()
    assert (own.value.fault, own.value.retry_after_s) == (Fault.OVERLOADED, 120)  # nothing has started yet
    await house.submit(tenant=OTHER)
    with pytest.raises(Refusal) as everybody:
        await house.submit(tenant=b"3" * 32)
    assert everybody.value.fault is Fault.OVERLOADED

    async def vetted(is_previous_ours: bool) -> Submission:
        raise AssertionError("the next one is not even judged")

    with pytest.raises(Refusal):
        await house.jobs.accept(b"4" * 32, Repeat(), None, vetted)
    assert len(house.engine._credentials._held) == 2, "those of the refused are not kept"


async def test_a_client_that_hangs_up_while_it_is_accepted_leaves_a_job_that_runs(build: Build) -> None:
    asked = asyncio.Event()
    go = asyncio.Event()

    class Slow(Wrapped):
        async def start(self, *arguments: Any) -> Any:
            asked.set()
            await go.wait()
            return await self.inner.start(*arguments)

    house = await build(wrap=Slow)
    key = Credential("Authorization", "Bearer caller")
    client = asyncio.create_task(house.submit(credential=key))
    await asked.wait()
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client
    go.set()
    async with asyncio.timeout(10):
        while not house.observer.seen or house.observer.seen[-1][1] != "finished":
            house.observer._news.clear()
            await house.observer._news.wait()
    (call,) = house.backend.calls
    assert call.credential == key
    assert (await house.job(call.job_id)).status is Status.COMPLETED


@pytest.mark.parametrize("method", ["find", "take_over", "delete"])
async def test_a_store_that_does_not_answer_is_a_refusal_and_no_defect(build: Build, method: str) -> None:
    async def fails(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("disk")

    house = await build(is_started=False)
    response_id = await house.submit()
    job = await house.job(response_id)
    setattr(house.store, method, fails)
    acts: dict[str, Callable[[], Awaitable[Any]]] = {
        "find": lambda: house.jobs.find(response_id, TENANT),
        "take_over": lambda: house.jobs.cancel(job),
        "delete": lambda: house.jobs.delete(job),
    }
    with pytest.raises(Refusal) as refusal:
        await acts[method]()
    assert refusal.value.fault is Fault.UNAVAILABLE
