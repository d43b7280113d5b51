"""The latest events in memory: what is given out was committed, and no more is kept than is allowed."""

from __future__ import annotations

import random

import pytest

from gateway.engine.tails import Tail, Tails
from gateway.store.port import Page
from gateway.wire.sse import encode

PLENTY = 2**20


def event(number: int) -> bytes:
    return encode("response.test", b'{"sequence_number":%d}' % number)


def page(first: int, count: int, *, is_end: bool = False) -> Page:
    return Page(b"".join(event(number) for number in range(first, first + count)), first + count - 1, is_end)


def tail_of(*counts: int, bytes_max: int = PLENTY) -> Tail:
    """A tail of blocks of so many events each."""
    tail, first = Tail(), 0
    for count in counts:
        tail.add(first, page(first, count), bytes_max)
        first += count
    return tail


@pytest.mark.parametrize("cursor", range(-1, 9))
def test_what_follows_a_cursor_is_found_wherever_the_blocks_begin(cursor: int) -> None:
    found = tail_of(1, 3, 2, 1, 2).after(cursor, PLENTY)
    assert found == Page(b"".join(event(number) for number in range(cursor + 1, 9)), 8, False)


def test_pages_are_of_a_size_and_together_the_whole() -> None:
    tail = tail_of(*[1] * 20)
    got, cursor, pages = b"", -1, 0
    while (found := tail.after(cursor, 5 * len(event(10)))) is not None and found.events:
        assert len(found.events) <= 5 * len(event(10))
        got, cursor, pages = got + found.events, found.last_seq, pages + 1
    assert got == b"".join(event(number) for number in range(20))
    assert pages == 4


def test_an_end_is_told_with_the_last_page_only() -> None:
    tail = tail_of(3)
    tail.add(3, page(3, 1, is_end=True), PLENTY)
    assert tail.after(-1, 1) == page(0, 3)
    assert tail.after(2, 1) == page(3, 1, is_end=True)
    assert tail.after(3, 1) == Page(b"", 3, True)


def test_whoever_is_behind_the_tail_or_ahead_of_it_is_sent_away() -> None:
    tail = tail_of(2, 2, 2, bytes_max=4 * len(event(1)))
    assert tail.after(0, PLENTY) is None
    assert tail.after(1, PLENTY) == page(2, 4)
    assert tail.after(6, PLENTY) is None
    assert Tail().after(-1, PLENTY) is None


def test_a_gap_in_what_is_told_empties_the_tail() -> None:
    tail = tail_of(2)
    tail.add(5, page(5, 1), PLENTY)
    assert tail.after(1, PLENTY) is None
    assert tail.after(4, PLENTY) == page(5, 1)
    assert tail.size == len(event(5))


def test_the_last_block_stays_however_large() -> None:
    tail = tail_of(1, 50, bytes_max=100)
    assert tail.after(0, 1) == page(1, 50)


def test_all_tails_together_keep_to_their_budget_and_the_quietest_go_first() -> None:
    size = len(event(1))
    tails = Tails(each_bytes_max=3 * size, all_bytes_max=4 * size)
    tails.add("a", 1, page(1, 2))
    tails.add("b", 1, page(1, 1))
    tails.add("a", 3, page(3, 1))
    tails.add("c", 1, page(1, 1))
    assert [tails.after(name, 0, PLENTY) for name in "abc"] == [page(1, 3), None, page(1, 1)]
    tails.add("d", 1, page(1, 5))
    assert [tails.after(name, 0, PLENTY) for name in "abcd"] == [None] * 4
    assert tails.size == 0
    tails.drop("a")


def test_the_size_is_what_is_held_after_any_moves() -> None:
    dice = random.Random(7)
    tails = Tails(each_bytes_max=300, all_bytes_max=2000)
    ends = dict.fromkeys("abcdefghij", 0)
    for _ in range(2000):
        name, count = dice.choice(list(ends)), dice.randint(1, 8)
        if dice.random() < 0.1:
            tails.drop(name)
        else:
            first = ends[name] + (dice.random() < 0.1)
            tails.add(name, first, page(first, count))
            ends[name] = first + count
        held = list(tails._tails.values())
        assert tails.size == sum(sum(len(p.events) for _, p in tail._blocks) for tail in held) <= 2000
