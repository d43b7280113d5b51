"""The tracer that the settings ask for: OpenTelemetry, by OTLP over HTTP. Extra `backburner[otel]`.

No content of requests or answers is in a span. Names follow the conventions for HTTP and GenAI where they
have one; the GenAI ones are not stable yet.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.config import TracingSettings
from gateway.logs import hear_seldom
from gateway.observe.tracing import Accepting, Tracing

_W3C = TraceContextTextMapPropagator()
_ENDS_WELL = frozenset({"completed", "incomplete", "cancelled", "waiting"})


_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_SAID_AGAIN_AFTER_S = 60.0
"""A collector that is away is worth a warning now and then, not an error for each batch."""


@dataclass(slots=True)
class _Run:
    """A run that is traced, with the call that is under way."""

    span: Span
    call: Span | None = None


class _Create(Accepting):
    def __init__(self, span: Span) -> None:
        self._span = span
        self.traceparent = _context_in(span)["traceparent"]

    def accepted(self, response_id: str, model: str | None) -> None:
        self._span.set_attribute("gen_ai.response.id", response_id)
        if model is not None:
            self._span.set_attribute("gen_ai.request.model", model)


class OtelTracing(Tracing):
    """Spans go to a collector from a thread of their own; what it does not take in time is dropped."""

    def __init__(self, settings: TracingSettings, *, version: str) -> None:
        resource = Resource.create({"service.name": settings.service_name, "service.version": version})
        assert settings.endpoint is not None
        hear_seldom(_EXPORTER, every_s=_SAID_AGAIN_AFTER_S)
        exporter = OTLPSpanExporter(settings.endpoint, timeout=settings.export_timeout_s)
        spans = BatchSpanProcessor(exporter, max_queue_size=settings.waiting_spans_max)
        share = TraceIdRatioBased(settings.sampled_percent / 100)
        # Of a run it was decided with its create.
        self._creates = TracerProvider(ParentBased(share), resource, shutdown_on_exit=False)
        self._runs_of = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        for provider in (self._creates, self._runs_of):
            provider.add_span_processor(spans)
        self._spans = spans
        self._tracers = self._creates.get_tracer("backburner"), self._runs_of.get_tracer("backburner")
        self._runs: dict[str, _Run] = {}

    @contextmanager
    def accepting(self, context: Mapping[str, str], request_id: str, began_ns: int) -> Iterator[Accepting]:
        span = self._tracers[0].start_span(
            "create background response",
            context=_W3C.extract(context, context=Context()),
            kind=SpanKind.SERVER,
            attributes={
                "gen_ai.operation.name": "chat",
                "http.request.method": "POST",
                "http.route": "/responses",
                "backburner.request_id": request_id,
            },
            start_time=began_ns,
        )
        try:
            yield _Create(span)
        except Exception as error:  # a refusal, or a defect: the span says which
            span.set_attribute("error.type", getattr(error, "code", None) or type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            span.end()

    def run_began(
        self, response_id: str, traceparent: str | None, *, backend: str, model: str | None, attempt: int
    ) -> None:
        self.run_ended(response_id, "lost", None)
        links = _links_to(traceparent)
        if not links:  # its create was not sampled, or not traced
            return
        span = self._tracers[1].start_span(
            "run background response",
            context=Context(),
            links=links,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": model or "",
                "gen_ai.response.id": response_id,
                "backburner.backend": backend,
                "backburner.attempt": attempt,
            },
        )
        self._runs[response_id] = _Run(span)

    def called(self, response_id: str, replica: int, request: str) -> None:
        if (run := self._runs.get(response_id)) is not None:
            self.call_ended(response_id)
            run.call = self._tracers[1].start_span(
                "call backend",
                context=set_span_in_context(run.span, Context()),
                kind=SpanKind.CLIENT,
                attributes={
                    "http.request.method": "POST",
                    "backburner.replica": replica,
                    "backburner.request_id": request,
                },
            )

    def context(self, response_id: str) -> Mapping[str, str]:
        run = self._runs.get(response_id)
        return _context_in(run.call) if run is not None and run.call is not None else {}

    def answered(self, response_id: str, status: int) -> None:
        if (run := self._runs.get(response_id)) is not None and run.call is not None:
            run.call.set_attribute("http.response.status_code", status)
            if status >= 400:
                run.call.set_status(Status(StatusCode.ERROR))

    def first_output(self, response_id: str) -> None:
        if (run := self._runs.get(response_id)) is not None:
            (run.call or run.span).add_event("first output", timestamp=time.time_ns())

    def call_ended(self, response_id: str) -> None:
        if (run := self._runs.get(response_id)) is not None and run.call is not None:
            run.call.end()
            run.call = None

    def run_ended(self, response_id: str, outcome: str, reason: str | None, code: str | None = None) -> None:
        self.call_ended(response_id)
        if (run := self._runs.pop(response_id, None)) is None:
            return
        run.span.set_attribute("backburner.outcome", outcome)
        if reason is not None:
            run.span.set_attribute("backburner.reason", reason)
        if outcome not in _ENDS_WELL:
            run.span.set_attribute("error.type", code or outcome)
            run.span.set_status(Status(StatusCode.ERROR))
        run.span.end()

    def close(self) -> None:
        for response_id in list(self._runs):
            self.run_ended(response_id, "lost", "shutdown")
        self._spans.shutdown()  # type: ignore[no-untyped-call]  # the SDK has left this one out


def _context_in(span: Span) -> dict[str, str]:
    found: dict[str, str] = {}
    _W3C.inject(found, context=set_span_in_context(span, Context()))
    return found


def _links_to(traceparent: str | None) -> list[Link]:
    """To the span of a create, if that was sampled."""
    if traceparent is None:
        return []
    carrier: Mapping[str, str] = {"traceparent": traceparent}
    context = get_current_span(_W3C.extract(carrier, context=Context())).get_span_context()
    return [Link(context)] if context.is_valid and context.trace_flags.sampled else []
