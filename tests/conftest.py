"""Before any test is collected."""

from __future__ import annotations

import pytest

# What holds assertions and is no test file itself; whoever imports it first, its failures show their values.
pytest.register_assert_rewrite("tests.store.exercise", "tests.store.exercise_outbox")
