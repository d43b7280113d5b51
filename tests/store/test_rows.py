"""Pages out of segments, whatever their sizes and wherever the cursor is."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.store.rows import to_page
from gateway.wire.sse import split_frames
from tests.store.exercise import event

SEGMENTS = st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=6), min_size=1, max_size=5)
"""By segment, how long the text of each of its events is."""


def rows_of(segments: list[list[int]], after: int) -> list[dict[str, Any]]:
    """What a store reads for a page: the segment that the cursor is in or before, and those behind it."""
    starts = [0, *accumulate(map(len, segments))]
    return [
        {
            "status": "completed",
            "next_seq": starts[-1],
            "first_seq": first,
            "last_seq": first + len(texts) - 1,
            "events": b"".join(event(first + number, "x" * size) for number, size in enumerate(texts)),
        }
        for first, texts in zip(starts, segments, strict=False)
        if first + len(texts) - 1 > after
    ]


@given(segments=SEGMENTS, bytes_max=st.integers(1, 600))
def test_pages_follow_each_other_without_a_gap_and_none_is_larger_than_it_may_be(
    segments: list[list[int]], bytes_max: int
) -> None:
    every = [
        event(number, "x" * size) for number, size in enumerate(size for texts in segments for size in texts)
    ]
    got, after, is_end = b"", -1, False
    while not is_end:
        page = to_page(rows_of(segments, after), after, bytes_max)
        assert page is not None
        found = split_frames(page.events)
        assert found == every[after + 1 : page.last_seq + 1]
        assert found
        assert len(page.events) <= bytes_max or len(found) == 1
        assert (page.is_end, page.has_more) == (
            page.last_seq == len(every) - 1,
            page.last_seq < len(every) - 1,
        )
        got, after, is_end = got + page.events, page.last_seq, page.is_end
    assert got == b"".join(every)


@given(segments=SEGMENTS, bytes_max=st.integers(1, 600), data=st.data())
def test_a_page_begins_after_the_cursor_wherever_that_is(
    segments: list[list[int]], bytes_max: int, data: st.DataObject
) -> None:
    count = sum(map(len, segments))
    after = data.draw(st.integers(-1, count - 2))
    page = to_page(rows_of(segments, after), after, bytes_max)
    assert page is not None
    [first, *_] = split_frames(page.events)
    assert b'"sequence_number":%d,' % (after + 1) in first
    assert page.last_seq == after + len(split_frames(page.events))


def test_there_is_no_page_without_a_job_and_an_empty_one_without_events() -> None:
    assert to_page([], 4, 100) is None
    none = {"status": "in_progress", "next_seq": 5, "first_seq": None, "last_seq": None, "events": None}
    page = to_page([none], 4, 100)
    assert page is not None
    assert (page.events, page.last_seq, page.is_end, page.has_more) == (b"", 4, False, False)
