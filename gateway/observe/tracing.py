"""What tracers are told of a response, and the trace context that goes with it; nothing, without a tracer.

A create is one span, of the caller's trace, and ends when the response is accepted. A run is a trace of its
own which links to it, and each call of a backend is a span in that: the run may be hours later, in another
process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gateway.config import TracingSettings


class Accepting:
    """A create that is being judged.

    Attributes:
        traceparent: What is stored with the response; None: whatever came from the caller.
    """

    traceparent: str | None = None

    def accepted(self, response_id: str, model: str | None) -> None:
        """It is stored, or was before."""


class Tracing:
    """Without a tracer. Each method is called for background responses only."""

    @contextmanager
    def accepting(self, context: Mapping[str, str], request_id: str, began_ns: int) -> Iterator[Accepting]:
        """A create, for as long as the block lasts.

        Args:
            context: The caller's, with names in lower case.
            began_ns: Unix nanoseconds in which its head had come.
        """
        yield Accepting()

    def run_began(
        self, response_id: str, traceparent: str | None, *, backend: str, model: str | None, attempt: int
    ) -> None:
        """A run of it begins. `traceparent`: stored with it."""

    def called(self, response_id: str, replica: int, request: str) -> None:
        """A backend is called, under this request id."""

    def context(self, response_id: str) -> Mapping[str, str]:
        """The headers of that call by which the backend goes on with the trace."""
        return {}

    def answered(self, response_id: str, status: int) -> None:
        """The head of the answer has come."""

    def first_output(self, response_id: str) -> None:
        """The first event has come that is output."""

    def call_ended(self, response_id: str) -> None:
        """The answer has ended, or the call has failed."""

    def run_ended(self, response_id: str, outcome: str, reason: str | None, code: str | None = None) -> None:
        """By an end of the response (`completed` …), or without one (`waiting`, `lost`)."""

    def close(self) -> None:
        """Send what is left."""


class TracerMissing(Exception):
    """What makes traces is not installed; the text says how it is."""


def tracing_of(settings: TracingSettings, *, version: str) -> Tracing:
    """What the settings ask for. Raises: TracerMissing."""
    if settings.endpoint is None:
        return Tracing()
    try:
        from gateway.observe.otel import OtelTracing
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise TracerMissing("tracing.endpoint needs OpenTelemetry: install backburner[otel]") from None
    return OtelTracing(settings, version=version)
