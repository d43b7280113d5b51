"""Without a tracer nothing happens; without its packages, a tracer that is asked for is missed."""

from __future__ import annotations

import sys

import pytest

from gateway.config import TracingSettings
from gateway.observe.tracing import TracerMissing, Tracing, tracing_of

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_tracer_that_is_not_installed_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith(("opentelemetry", "gateway.observe.otel"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(TracerMissing, match=r"install backburner\[otel\]"):
        tracing_of(TracingSettings(endpoint="http://collector:4318/v1/traces"), version="1")


def test_without_an_endpoint_nothing_is_traced() -> None:
    tracing = tracing_of(TracingSettings(), version="1")
    assert type(tracing) is Tracing
    with tracing.accepting({"traceparent": GOOD}, "request", 0) as accepting:
        accepting.accepted("resp_1", "tiny")
    assert accepting.traceparent is None
    assert tracing.context("resp_1") == {}
