"""One run: what it calls, what it stores, and how it ends."""

from __future__ import annotations

import orjson
import pytest

from gateway.core.upstream import UpstreamAnswer, UpstreamClosed
from gateway.wire.http.head import Credential
from tests.support.house import (
    ALL,
    Hold,
    House,
    frames,
    text_of,
    until_noted,
)

TEXT = "one two three four five"


async def test_what_was_accepted_is_run_to_its_end(house: House) -> None:
    key = Credential("Authorization", "Bearer caller")
    response_id = await house.submit(metadata={"k": "v"}, credential=key)
    response = await house.ended(response_id)
    assert (response["id"], response["status"], response["background"]) == (response_id, "completed", True)
    assert response["metadata"] == {"k": "v"}
    assert text_of(response).startswith(TEXT)
    (call,) = house.backend.calls
    assert (call.job_id, call.target, call.credential) == (response_id, "/v1/responses", key)
    assert call.headers == {"user-agent": "test", "x-held": "1"}
    sent = orjson.loads(call.body)
    assert sent["stream"] is True
    assert "background" not in sent or sent["background"] is False
    types = [event["type"] for event in await house.stored(response_id)]
    assert types[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert types[-1] == "response.completed"
    assert house.observer.of(response_id) == ["started", "upstream_ended", "finished"]
    assert response_id not in house.engine._credentials._held, "held no longer than needed"


async def test_an_answer_that_is_no_stream_completes_too(house: House) -> None:
    answer = orjson.loads(frames(-1).frames[0].data)["response"]
    house.backend.script = [UpstreamAnswer(orjson.dumps(answer))]
    response = await house.ended(await house.submit())
    assert response["status"] == "completed"
    assert text_of(response).startswith(TEXT)


async def test_a_backend_that_breaks_off_fails_the_response_with_its_partial_output(house: House) -> None:
    house.backend.script = [frames(0, 6), UpstreamClosed()]
    response = await house.ended(await house.submit(stream=True))
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert text_of(response) == "one two three four"
    assert response["output"][0]["status"] == "incomplete"


async def test_a_break_that_nobody_saw_is_run_again_from_the_start(house: House) -> None:
    house.backend.script = [frames(0, 6), UpstreamClosed()]
    response_id = await house.submit()
    await house.observer.until(response_id, "released")
    house.backend.script = ALL
    house.clock.advance(1)
    response = await house.ended(response_id)
    assert response["status"] == "completed"
    assert len(house.backend.calls_of(response_id)) == 2


async def test_a_break_in_every_attempt_fails_the_response_in_the_end(house: House) -> None:
    house.backend.script = [frames(0, 6), UpstreamClosed()]
    response_id = await house.submit()
    await house.observer.until(response_id, "released")
    house.clock.advance(1)
    response = await house.ended(response_id)
    assert (response["status"], text_of(response)) == ("failed", "one two three four")
    assert len(house.backend.calls_of(response_id)) == 2


@pytest.mark.parametrize("after_output", [False, True])
async def test_a_defect_in_a_run_fails_its_response_and_no_other(house: House, after_output: bool) -> None:
    head = [frames(0, 6)] if after_output else []
    hold = Hold()
    house.backend.script = [*head, hold, RuntimeError("secret detail")]
    broken = await house.submit()
    await hold.here()
    hold.go.set()
    house.backend.script = ALL
    fine = await house.submit()
    assert (await house.ended(fine))["status"] == "completed"
    await house.backend.closed(broken)
    await until_noted(house, broken)
    await house.tick()
    response = await house.ended(broken)
    assert response["status"] == "failed"
    assert response["error"]["message"] == "The gateway failed while it ran or ended this response."
    await house.stored(broken)
