"""Responses that go on from earlier ones."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.core.reason import Reason
from gateway.core.upstream import UpstreamFailed
from gateway.wire.conversation.items import context
from gateway.wire.conversation.replay import ReplayTarget
from gateway.wire.errors import Refusal
from gateway.wire.failures import failure
from tests.support.house import (
    OTHER,
    TENANT,
    Build,
    Hold,
    House,
)


def sent_back(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items of an answer as a later call has them: a field that is null may be one that must not be."""
    return [{name: value for name, value in item.items() if value is not None} for item in output]


async def test_a_later_turn_carries_the_earlier_ones_but_not_their_instructions(house: House) -> None:
    first = await house.submit(input="first question", instructions="Be brief.")
    answer = await house.ended(first)
    second = await house.submit(input=[{"role": "user", "content": "second"}], previous=first)
    await house.ended(second)
    third = await house.submit(input="third", previous=second, instructions="Be long.")
    await house.ended(third)
    (call,) = house.backend.calls_of(third)
    sent = orjson.loads(call.body)
    again = (await house.shown(second))["output"]
    assert sent["input"] == [
        {"role": "user", "content": "first question"},
        *sent_back(answer["output"]),
        {"role": "user", "content": "second"},
        *sent_back(again),
        {"role": "user", "content": "third"},
    ]
    assert sent["instructions"] == "Be long."
    assert "previous_response_id" not in sent
    (call,) = house.backend.calls_of(second)
    assert orjson.loads(call.body).get("instructions") is None
    assert (await house.shown(third))["previous_response_id"] == second


async def test_a_plain_request_is_expanded_with_the_earlier_turns(house: House) -> None:
    first = await house.submit(input="first question")
    answer = await house.ended(first)
    turns = await house.jobs.turns.up_to(await house.job(first), first)
    question = {"role": "user", "content": "first question"}
    said = context(turns, "now", ReplayTarget())
    assert said == [question, *sent_back(answer["output"]), {"role": "user", "content": "now"}]


async def test_a_turn_whose_context_only_the_backend_has_cannot_be_continued(house: House) -> None:
    first = await house.submit(previous_response_id="resp_of_the_backend")
    await house.ended(first)
    with pytest.raises(Refusal, match="backend's own"):
        await house.submit(previous=first)
    with pytest.raises(Refusal, match="backend's own"):
        await house.jobs.turns.up_to(await house.job(first), first)


@pytest.mark.parametrize("state", ["queued", "in_progress"])
async def test_a_response_that_still_runs_cannot_be_continued(build: Build, state: str) -> None:
    house = await build(is_started=False)
    hold = Hold()
    house.backend.script = [hold]
    first = await house.submit()
    if state == "in_progress":
        await house.start()
        await hold.here()
    with pytest.raises(Refusal, match=f"is still {state}") as refusal:
        await house.submit(previous=first)
    assert refusal.value.code == "previous_response_not_ready"
    assert refusal.value.param == "previous_response_id"


@pytest.mark.parametrize("state", ["failed", "cancelled"])
async def test_a_response_that_went_wrong_cannot_be_continued(house: House, state: str) -> None:
    hold = Hold()
    house.backend.script = [hold, UpstreamFailed(failure("No."), Reason.REFUSED, 400)]
    first = await house.submit()
    await hold.here()
    if state == "cancelled":
        await house.cancel(first)
    hold.go.set()
    assert (await house.ended(first))["status"] == state
    with pytest.raises(Refusal, match=f"is {state}") as refusal:
        await house.submit(previous=first)
    assert refusal.value.code == "previous_response_not_usable"


@pytest.mark.parametrize("case", ["unknown", "foreign", "deleted", "expired"])
async def test_previous_responses_that_are_not_there_are_refused_alike(house: House, case: str) -> None:
    first = await house.submit(tenant=OTHER if case == "foreign" else TENANT)
    await house.observer.until(first, "finished")
    if case == "unknown":
        first = "resp_" + "f" * 48
    elif case == "deleted":
        await house.jobs.delete(await house.job(first))
    elif case == "expired":
        house.clock.advance(house.settings.background.retention_s)
    with pytest.raises(Refusal) as refusal:
        await house.submit(previous=first)
    assert refusal.value.code == "previous_response_not_found"
    assert refusal.value.message == f"Previous response with id '{first}' not found."
