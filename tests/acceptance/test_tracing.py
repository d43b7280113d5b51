"""What a collector gets of a response, and which trace its backend goes on with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from demo.model_server import listening
from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, within
from tests.acceptance.replay import Call, ReplayServer
from tests.acceptance.test_retries import refusal

SECRET = "the prompt, which is nobody else's business"
ASK = {"model": "tiny", "input": SECRET, "background": True}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


class Collector:
    """Takes spans as an OpenTelemetry collector does.

    Attributes:
        raw: What was sent.
    """

    def __init__(self) -> None:
        self.raw = b""
        self.url = ""
        self._spans: list[Span] = []
        self._news = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self._spans += scope.spans
        self._news.set()
        return web.Response(body=b"", content_type="application/x-protobuf")

    async def spans(self, count: int) -> list[Span]:
        """As soon as there are so many; in the order in which they began."""
        while len(self._spans) < count:
            self._news.clear()
            await within(self._news.wait(), 20)
        assert len(self._spans) == count, [span.name for span in self._spans]
        return self._in_order()

    async def until(self, span_id: str) -> list[Span]:
        """As soon as this one is among them, and the one it is in."""
        while not {span_id, *(span.parent_span_id.hex() for span in self._spans)} - {""} <= {
            span.span_id.hex() for span in self._spans
        } | {PARENT}:
            self._news.clear()
            await within(self._news.wait(), 20)
        return self._in_order()

    def _in_order(self) -> list[Span]:
        return sorted(self._spans, key=lambda span: span.start_time_unix_nano)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    found = Collector()
    async with listening(found.app(), "127.0.0.1", 0) as root:
        found.url = f"{root}/v1/traces"
        yield found


def headers_of(call: Call) -> dict[str, str]:
    """Of a call of the model server, with names in lower case."""
    return {name.lower(): value for name, value in call.headers}


def told(span: Span) -> dict[str, Any]:
    """Its attributes."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def traced_by(url: str) -> dict[str, str]:
    """Settings; the tracer's own say that it sends soon."""
    return {"BACKBURNER_TRACING__ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "100"}


async def accept(gateway: Gateway, **headers: str) -> tuple[str, str]:
    """Id of the response, and of the request."""
    answer = await gateway.call("POST", "/responses", ASK, more=headers)
    assert answer.status == 200, answer.body
    return answer.json()["id"], answer.headers["x-request-id"]


async def test_a_create_is_a_span_of_its_caller_and_each_run_a_trace_with_a_span_for_each_call(
    start_gateway: StartGateway, replay_server: ReplayServer, collector: Collector
) -> None:
    gateway = await start_gateway("--api", "responses", **traced_by(collector.url))
    replay_server.script(refusal(503, "0"))
    response_id, request_id = await accept(gateway, traceparent=SAMPLED, tracestate="vendor=1")
    await gateway.ended(response_id)
    create, first, failed, second, call = await collector.spans(5)

    assert (create.trace_id.hex(), create.parent_span_id.hex()) == (TRACE, PARENT)
    assert told(create) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "tiny",
        "gen_ai.response.id": response_id,
        "http.request.method": "POST",
        "http.route": "/responses",
        "backburner.request_id": request_id,
    }
    for run in (first, second):
        assert run.trace_id != create.trace_id
        assert run.parent_span_id == b""
        assert [(link.trace_id, link.span_id) for link in run.links] == [(create.trace_id, create.span_id)]
    assert first.trace_id != second.trace_id
    assert (failed.trace_id, failed.parent_span_id) == (first.trace_id, first.span_id)
    assert (call.trace_id, call.parent_span_id) == (second.trace_id, second.span_id)
    assert told(failed)["http.response.status_code"] == 503
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert told(call)["http.response.status_code"] == 200
    assert [event.name for event in call.events] == ["first output"]
    assert [told(run)["backburner.outcome"] for run in (first, second)] == ["waiting", "completed"]
    asked = [await replay_server.create(number) for number in range(2)]
    for span, sent in zip((failed, call), asked, strict=True):
        headers = headers_of(sent)
        version, trace_id, span_id, flags = headers["traceparent"].split("-")
        assert (version, trace_id, span_id) == ("00", span.trace_id.hex(), span.span_id.hex())
        assert int(flags, 16) & 1, "it is sampled"
        assert "tracestate" not in headers
        assert told(span)["backburner.request_id"] == headers["x-request-id"]
    assert create.end_time_unix_nano <= call.end_time_unix_nano
    assert SECRET.encode() not in collector.raw


async def test_a_refused_create_says_why_and_no_run_follows(
    start_gateway: StartGateway, collector: Collector
) -> None:
    gateway = await start_gateway("--api", "responses", **traced_by(collector.url))
    answer = await gateway.call("POST", "/responses", {**ASK, "temperature": "hot"})
    assert answer.status == 400
    (span,) = await collector.spans(1)
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert told(span)["error.type"]
    assert "gen_ai.response.id" not in told(span)


async def test_what_a_caller_does_not_sample_is_not_traced_and_the_backend_is_told_so(
    start_gateway: StartGateway, replay_server: ReplayServer, collector: Collector
) -> None:
    gateway = await start_gateway("--api", "responses", **traced_by(collector.url))
    response_id, _ = await accept(gateway, traceparent=UNSAMPLED)
    await gateway.ended(response_id)
    version, trace, _, flags = headers_of(await replay_server.create(0))["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "00")
    traced_id, _ = await accept(gateway)
    await gateway.ended(traced_id)
    assert {told(span)["gen_ai.response.id"] for span in (await collector.spans(3))[:2]} == {traced_id}


@pytest.mark.parametrize("is_traced", [False, True])
async def test_the_context_of_a_trace_outlives_the_process(
    start_gateway: StartGateway, replay_server: ReplayServer, collector: Collector, is_traced: bool
) -> None:
    settings = traced_by(collector.url) if is_traced else {}
    gateway = await start_gateway("--api", "responses", **settings)
    replay_server.script(refusal(503, "2"))
    response_id, _ = await accept(gateway, traceparent=SAMPLED)
    await replay_server.create(0)
    await gateway.kill9()
    await gateway.restart()
    await gateway.ended(response_id)
    sent = headers_of(await replay_server.create(1))["traceparent"]
    if not is_traced:
        assert sent == SAMPLED
        return
    *_, run, call = await collector.until(sent.split("-")[2])
    assert [link.trace_id.hex() for link in run.links] == [TRACE]
    assert call.parent_span_id == run.span_id


async def test_a_collector_that_is_away_costs_nothing_but_its_spans(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(
        "--api",
        "responses",
        BACKBURNER_TRACING__ENDPOINT="http://127.0.0.1:9/v1/traces",
        BACKBURNER_TRACING__EXPORT_TIMEOUT_S="1",
    )
    response_id, _ = await accept(gateway)
    assert (await gateway.ended(response_id))["status"] == "completed"
    told_of = await gateway.line(event="library")
    assert told_of["level"] == "warning"
    assert "export" in told_of["reason"]
