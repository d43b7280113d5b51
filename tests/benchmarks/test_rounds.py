"""Rounds take turns; those in which strangers took the machine are thrown away, and not for ever."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.figure import Trial, added
from benchmarks.machine import Moment, strangers
from benchmarks.rounds import Played, play


class Machine:
    """A clock of which a round takes a second; strangers take what is said, round by round."""

    def __init__(self, taken: list[float]) -> None:
        self._moments = [moment for each in taken for moment in (Moment(0, 0, 0), Moment(1, each + 1, 1))]

    def now(self) -> Moment:
        return self._moments.pop(0)


def trials(order: list[str]) -> list[Trial]:
    def run(name: str) -> Callable[[], Mapping[str, float]]:
        def one() -> Mapping[str, float]:
            order.append(name)
            return {"cpu": float(len(order))}

        return one

    return [Trial("case", name, run(name)) for name in ("a", "b", "c")]


def played(taken: list[float], count: int, thrown_away_max: int, order: list[str] | None = None) -> Played:
    found = trials([] if order is None else order)
    return play(found, count, Machine(taken).now, lambda _: None, thrown_away_max=thrown_away_max)


def test_strangers_are_who_computed_and_is_not_ours() -> None:
    before, after = Moment(at_s=10, all_s=100, ours_s=50), Moment(at_s=12, all_s=104, ours_s=53)
    assert strangers(before, after) == 0.5


def test_nobody_is_always_the_first() -> None:
    order: list[str] = []
    played([0, 0, 0], 3, 0, order)
    assert "".join(order) == "abcbcacab"


def test_a_disturbed_round_is_thrown_away_and_repeated() -> None:
    found = played([0.0, 0.75, 0.125], 2, 5)
    assert [each.strangers for each in found.rounds] == [0.0, 0.125]
    assert (found.thrown_away, found.disturbed) == (1, False)


def test_when_too_many_are_disturbed_the_least_disturbed_have_to_do_and_it_says_so() -> None:
    found = played([0.875, 0.125, 0.5, 0.75], 3, 1)
    assert [each.strangers for each in found.rounds] == [0.125, 0.5, 0.75]
    assert (found.thrown_away, found.disturbed) == (1, True)


def test_what_is_added_is_the_difference_to_direct_in_the_same_case() -> None:
    values = {
        ("p50", "1", "direct"): 3.0,
        ("p50", "1", "nginx"): 5.0,
        ("p50", "2", "nginx"): 9.0,
        ("p99", "1", "nginx"): 7.0,
    }
    assert added("p50", "added p50")(values) == {("added p50", "1", "nginx"): 2.0}
