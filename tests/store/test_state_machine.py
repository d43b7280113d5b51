"""The store against its model, for some seconds; `make torture ONLY=T8` does it for some minutes."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.store.machine import StoreMachine

TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
