"""`/openapi.json`: where it is, that it says what the code does, and that the gateway keeps to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from demo.model_server import listening
from gateway import __version__
from gateway.api.http.errors import STATUS
from gateway.wire import openapi
from gateway.wire.dialects import Dialect
from gateway.wire.errors import Fault
from gateway.wire.requests import CreateRequest
from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway
from tests.acceptance.replay import ReplayServer
from tests.contract.backend import make_app
from tests.contract.play import judge


async def test_the_gateway_keeps_to_its_document(start_gateway: StartGateway, tmp_path: Path) -> None:
    async with listening(make_app(), "127.0.0.1", 0) as root:
        gateway = await start_gateway(upstream=f"{root}/v1")
        verdict = await judge(gateway.url, tmp_path, examples=5, seed=7)
    assert verdict.failures == [], verdict.said
    assert verdict.phases == dict.fromkeys(("examples", "coverage", "fuzzing", "stateful"), "success")
    assert verdict.cases > 200


async def test_the_document_is_on_both_ports(gateway: Gateway) -> None:
    origin = gateway.url.removesuffix("/v1")
    answers = []
    for url in (f"{origin}/openapi.json", f"{gateway.admin}/openapi.json"):
        async with gateway.http.get(url) as answer:
            assert answer.status == 200
            assert answer.content_type == "application/json"
            answers.append(await answer.json())
    assert answers[0] == answers[1]
    assert answers[0]["openapi"] == "3.1.0"
    assert answers[0]["info"]["version"] == __version__
    assert answers[0]["servers"] == [{"url": "/v1"}]


async def test_the_backends_own_document_is_passed_through_where_the_settings_say_so(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(BACKBURNER_SERVER__OPENAPI="backend")
    origin = gateway.url.removesuffix("/v1")
    async with gateway.http.get(f"{origin}/openapi.json") as answer:
        assert answer.status == 404  # this one has none
    assert [call.target for call in replay_server.calls] == ["/openapi.json"]
    async with gateway.http.get(f"{gateway.admin}/openapi.json") as answer:
        assert (await answer.json())["info"]["title"] == "Backburner"


def test_every_status_that_the_gateway_chooses_is_documented() -> None:
    unpromised = {STATUS[Fault.INTERNAL], STATUS[Fault.METHOD]}  # a defect; of no method that is there
    unpromised |= {STATUS[Fault.NO_WEBSOCKET]}  # of handshakes only
    documented = {
        int(status)
        for path in _document(Dialect.OPENAI)["paths"].values()
        for method, operation in path.items()
        if method != "parameters"
        for status in operation["responses"]
        if status != "default"
    }
    assert documented == {200} | set(STATUS.values()) - unpromised


@pytest.mark.parametrize(("dialect", "status"), [(Dialect.OPENAI, "200"), (Dialect.PHARIA, "202")])
def test_what_is_documented_of_a_create_is_what_its_model_checks(dialect: Dialect, status: str) -> None:
    document = _document(dialect)
    schemas = document["components"]["schemas"]
    assert set(schemas["CreateBackgroundResponse"]["properties"]) == set(CreateRequest.model_fields)
    assert "links" in document["paths"]["/responses"]["post"]["responses"][status]


def _document(dialect: Dialect) -> Any:
    return orjson.loads(
        openapi.document(version="1", base_path="/v1", dialect=dialect, accepts_store_false=False)
    )
