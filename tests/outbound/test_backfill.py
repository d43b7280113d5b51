"""What an engine's metrics say about its queue, and how many jobs go there because of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.config import UpstreamSettings
from gateway.outbound.backend import HttpBackend
from gateway.outbound.backfill import Backfill, queue_length
from gateway.outbound.pool import Pool

VLLM = b"""# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a{b}c"} 3.0
vllm:num_requests_waiting{engine="1",model_name="a"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:num_requests_running{engine="0",model_name="a"} 16.0
"""


@pytest.mark.parametrize(
    ("engine", "page", "waiting"),
    [
        ("vllm", VLLM, 4),
        ("vllm", VLLM.replace(b"\n", b"\r\n"), 4),
        ("vllm", b"vllm:num_requests_waiting 1e+02\n", 100),
        ("vllm", b"vllm:num_requests_waiting 7 1700000000000\n", 7),
        ("sglang", b'sglang:num_queue_reqs{model_name="m"} 2.0\n', 2),
        ("llamacpp", b"# TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred 0\n", 0),
        ("llamacpp", VLLM, None),
        ("vllm", b"", None),
        ("vllm", b"<html>no metrics here</html>", None),
        ("vllm", b"vllm:num_requests_waiting ...\n", None),
        ("vllm", b"vllm:num_requests_waiting e+\n", None),
        ("vllm", b"vllm:num_requests_waiting NaN\n", None),
        ("vllm", b"\xff\xfe vllm:num_requests_waiting 5\n", None),
    ],
)
def test_the_length_of_the_queue_is_read_from_any_page(
    engine: str, page: bytes, waiting: float | None
) -> None:
    assert queue_length(page, engine) == waiting


def watching(**settings: Any) -> tuple[Backfill, Pool]:
    made = UpstreamSettings.model_validate({"url": "http://m.test/v1", "backfill": "vllm", **settings})
    pool = Pool(made)
    backend = SimpleNamespace(name="m", settings=made, pool=pool)
    return Backfill(cast(HttpBackend, backend)), pool


def test_nothing_is_held_before_the_first_look() -> None:
    backfill, _ = watching()
    assert backfill.held_until_ms(1000) is None
    assert backfill.slots_max > 10_000


def test_jobs_are_held_while_more_wait_than_may_and_not_longer() -> None:
    backfill, _ = watching(backfill_waiting_max=2, backfill_hold_s=60)
    for waiting, is_held in ((2.0, False), (3.0, True), (2.0, False)):
        backfill.looked([waiting])
        assert backfill.is_busy is is_held
        assert backfill.held_until_ms(100_000) == (40_000 if is_held else None)


def test_those_that_were_held_too_long_meet_no_other_limit() -> None:
    backfill, _ = watching()
    backfill.looked([5.0])
    assert backfill.slots_max > 10_000


@pytest.mark.parametrize(("under_way", "limit"), [(0, 1), (1, 2), (4, 5), (8, 10), (100, 125)])
def test_beside_an_empty_queue_jobs_grow_by_a_fourth_and_at_least_one(under_way: int, limit: int) -> None:
    backfill, pool = watching()
    pool.replicas[0].background = under_way
    backfill.looked([0.0])
    assert backfill.slots_max == limit


def test_one_replica_that_does_not_say_leaves_it_to_the_others() -> None:
    backfill, _ = watching()
    backfill.looked([None, 1.0])
    assert backfill.is_busy
    backfill.looked([None, 0.0])
    assert backfill.slots_max == 1
    backfill.looked([None, None])
    assert (backfill.is_busy, backfill.slots_max > 10_000) == (False, True)
