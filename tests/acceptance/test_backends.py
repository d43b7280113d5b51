"""Several backends behind one gateway: who gets what, by which name, and what there is to ask for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.fleet import MODEL, Fleet, ModelProcess, ask, asked_of, final, submit
from tests.acceptance.harness import Gateway

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Count to 3"}]}


class House:
    """A gateway with a big and a small model server, which clients know by names of its own."""

    def __init__(self, gateway: Gateway, big: ModelProcess, small: ModelProcess) -> None:
        self.gateway = gateway
        self.big = big
        self.small = small

    async def asked(self) -> tuple[int, int]:
        return await asked_of(self.gateway, self.big), await asked_of(self.gateway, self.small)


@pytest.fixture(params=["responses", "chat"])
async def house(fleet: Fleet, request: pytest.FixtureRequest) -> House:
    """`big-1` and `big-2` are the big one's model, `gpt-4o` is the small one's."""
    big, small = await fleet.server(), await fleet.server()
    backends = {
        "big": {
            "url": big.url,
            "models": ["big-*"],
            "rename": {"big-1": MODEL, "big-2": MODEL},
            "api": request.param,
        },
        "small": {
            "url": small.url,
            "models": [MODEL],
            "rename": {"gpt-4o": MODEL},
            "api": request.param,
        },
    }
    return House(await fleet.gateway(backends), big, small)


async def test_the_model_decides_who_is_asked_and_each_is_asked_by_the_name_it_knows(house: House) -> None:
    """The demo's servers refuse every name but their own: an answer is proof of the name."""
    gateway = house.gateway
    expected = [0, 0]
    for model, is_small in (("big-1", 0), ("gpt-4o", 1), ("big-2", 0), (MODEL, 1)):
        plain = await ask(gateway, model=model)
        assert plain.status == 200, plain.body
        assert plain.json()["output"][0]["content"][0]["text"] == "1 2 3."
        streamed = await ask(gateway, model=model, stream=True)
        assert b"response.completed" in streamed.body
        job = await final(gateway, await submit(gateway, model=model))
        assert (job["status"], job["error"]) == ("completed", None)
        chat = await gateway.call("POST", "/chat/completions", {**CHAT, "model": model})
        assert chat.status == 200, chat.body
        expected[is_small] += 4
        assert await house.asked() == tuple(expected), model


async def test_an_unknown_model_is_nobody_s(house: House) -> None:
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/responses", {"input": "x"}),
        ("/responses", {"input": "x", "background": True}),
        ("/chat/completions", CHAT),
        ("/embeddings", {"input": "x"}),
    ]
    for path, body in requests:
        refused = await house.gateway.call("POST", path, {**body, "model": "huge"})
        assert refused.status == 404, path
        assert refused.error["code"] == "model_not_found", path
        assert refused.error["param"] == "model"
        assert "huge" in refused.error["message"]
    assert await house.asked() == (0, 0)


async def test_the_list_of_models_has_what_can_be_asked_for(house: House) -> None:
    client = house.gateway.client()
    listed = [model.id for model in (await client.models.list()).data]
    assert sorted(listed) == ["big-1", "big-2", MODEL, "gpt-4o"]
    for name in listed:
        found = await client.models.retrieve(name)
        assert (found.id, found.object) == (name, "model")
        assert (await ask(house.gateway, model=name)).status == 200
    missing = await house.gateway.call("GET", "/models/huge")
    assert missing.status == 404
    assert missing.error["code"] == "model_not_found"


async def test_the_list_of_models_does_without_a_backend_that_is_down(house: House) -> None:
    await house.big.kill9()
    listed = (await house.gateway.call("GET", "/models")).json()["data"]
    assert sorted(model["id"] for model in listed) == [MODEL, "gpt-4o"]
    await house.small.kill9()
    assert (await house.gateway.call("GET", "/models")).status == 502


async def test_callers_that_no_backend_knows_are_told_so_when_they_ask_for_the_models(fleet: Fleet) -> None:
    servers = [await fleet.server("--api-key", "sk-right") for _ in range(2)]
    backends: dict[str, dict[str, Any]] = {
        "one": {"url": servers[0].url, "models": [MODEL]},
        "two": {"url": servers[1].url, "models": ["x"], "rename": {"x": MODEL}},
    }
    gateway = await fleet.gateway(backends)
    for path in ("/models", f"/models/{MODEL}"):
        assert (await gateway.call("GET", path, key="sk-wrong")).status == 401
        assert (await gateway.call("GET", path, key="sk-right")).status == 200


async def test_a_name_that_a_backend_gives_a_model_goes_before_the_patterns_of_others(fleet: Fleet) -> None:
    anything, own = await fleet.server(), await fleet.server()
    backends: dict[str, dict[str, Any]] = {
        "anything": {"url": anything.url, "models": ["*"]},
        "own": {"url": own.url, "models": ["llama-*"], "rename": {"gpt-4o": MODEL}},
    }
    gateway = await fleet.gateway(backends)
    assert (await ask(gateway, model="gpt-4o")).status == 200
    assert (await ask(gateway, model=MODEL)).status == 200
    assert [await asked_of(gateway, server) for server in (anything, own)] == [1, 1]


async def test_what_matches_no_pattern_goes_to_the_default_backend(fleet: Fleet) -> None:
    first, second = await fleet.server(), await fleet.server()
    backends = {
        "first": {"url": first.url, "models": ["a-*"]},
        "second": {"url": second.url, "models": ["b-*"]},
    }
    gateway = await fleet.gateway(backends, default_backend="second")
    assert (await ask(gateway)).status == 200
    assert (await final(gateway, await submit(gateway)))["status"] == "completed"
    no_model = await gateway.call("POST", "/chat/completions", CHAT)
    assert no_model.status == 200, no_model.body
    assert [await asked_of(gateway, server) for server in (first, second)] == [0, 3]


async def test_one_backend_that_renames_lists_the_names_that_clients_use(fleet: Fleet) -> None:
    server = await fleet.server()
    gateway = await fleet.gateway({"only": {"url": server.url, "models": ["x-*"], "rename": {"x-1": MODEL}}})
    listed = (await gateway.call("GET", "/models")).json()["data"]
    assert [model["id"] for model in listed] == ["x-1"]
    assert (await ask(gateway, model="x-1")).status == 200


async def test_jobs_of_a_backend_that_left_the_settings_fail_and_say_so(fleet: Fleet) -> None:
    leaving, staying = await fleet.server(words_per_second=1), await fleet.server()
    backends: dict[str, dict[str, Any]] = {
        "leaving": {"url": leaving.url, "models": ["old"], "rename": {"old": MODEL}, "concurrency_max": 1},
        "staying": {"url": staying.url, "models": [MODEL]},
    }
    gateway = await fleet.gateway(backends)
    running = await submit(gateway, model="old")
    await gateway.line(id=running, to="in_progress")
    queued = await submit(gateway, model="old", stream=False)
    await gateway.kill9()
    fleet.configure({"staying": backends["staying"]})
    await gateway.restart()
    for response_id in (running, queued):
        ended = await final(gateway, response_id)
        assert ended["status"] == "failed"
        assert "no longer configured" in ended["error"]["message"]
        assert (await gateway.log_of_end(response_id))["reason"] == "backend_removed"
    assert (await final(gateway, await submit(gateway)))["status"] == "completed"


async def test_what_is_nested_too_deeply_to_be_renamed_is_refused(house: House) -> None:
    deep = b'{"model": "big-1", "messages": %b}' % (b"[" * 300 + b"]" * 300)
    refused = await house.gateway.call("POST", "/chat/completions", deep)
    assert (refused.status, refused.error["code"]) == (400, "too_deep")
    assert await house.asked() == (0, 0)


async def test_a_body_made_to_fill_the_memory_is_not_parsed_for_its_model(house: House) -> None:
    many = b'{"messages": [%b[]], "model": "big-1"}' % (b"[]," * 1_000_000)
    for path in ("/chat/completions", "/responses"):
        refused = await house.gateway.call("POST", path, many)
        assert (refused.status, refused.error["code"]) == (400, "too_many_values")
    numbers = b'{"input": [%b1], "model": "huge"}' % (b"1," * 900_000)
    told = await house.gateway.call("POST", "/embeddings", numbers)
    assert told.error["code"] == "model_not_found", "a batch of tokens is nothing to be afraid of"
    assert await house.asked() == (0, 0)
