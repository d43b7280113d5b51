"""What is made of the values: ratios, goals, changes, text and charts."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import charts, table
from benchmarks.__main__ import chosen
from benchmarks.compare import compare
from benchmarks.figures import FIGURES
from benchmarks.goals import GOALS, Goal, judge
from benchmarks.results import Row, Run, Spread


def row(subject: str, *values: float | None, case: str = "GET", measure: str = "requests") -> Row:
    return Row("requests", case, measure, subject, "requests/s", True, list(values))


def run(*rows: Row) -> Run:
    return Run(
        made_at="2027-01-01T00:00:00+00:00",
        commit="abc",
        short=False,
        machine={"cores": 2},
        versions={},
        titles={"requests": "Pass-through <saturated>"},
        anchors={"requests": "nginx"},
        rows=list(rows),
    )


def test_a_ratio_is_taken_round_by_round() -> None:
    found = run(row("gateway", 10, 30, 20), row("nginx", 20, 30, 80))
    assert found.ratio(found.rows[0]) == Spread(median=0.5, least=0.25, largest=1.0)


def test_a_round_that_gave_no_value_is_in_no_ratio() -> None:
    found = run(row("gateway", None, 30, 20), row("nginx", 20, None, 80))
    assert found.ratio(found.rows[0]) == Spread(0.25, 0.25, 0.25)
    assert found.rows[0].spread == Spread(25, 20, 30)


def test_without_an_anchor_there_is_no_ratio() -> None:
    found = run(row("gateway", 10))
    assert found.ratio(found.rows[0]) is None


def test_a_stored_run_is_the_same_when_it_is_read(tmp_path: Path) -> None:
    stored = run(row("gateway", 10, None), row("nginx", 20, 21))
    stored.save(tmp_path / "deep" / "run.json")
    assert Run.load(tmp_path / "deep" / "run.json") == stored


@pytest.mark.parametrize("text", ["", "{}", '{"rows": [{}]}', "[]"])
def test_a_file_that_is_no_run_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ValueError, match=r"other\.json is not a stored run"):
        Run.load(tmp_path / "other.json")


def test_what_is_apart_from_before_is_a_change_for_better_or_worse() -> None:
    before = run(row("gateway", 10, 12, 11), row("gateway", 10, 12, case="POST"))
    after = run(row("gateway", 20, 22, 21), row("gateway", 5, 6, case="POST"))
    assert [(each.row.case, each.is_better) for each in compare(before, after)] == [
        ("GET", True),
        ("POST", False),
    ]


def test_less_is_better_where_the_measure_says_so() -> None:
    def cpu(*values: float) -> Run:
        return run(Row("requests", "GET", "cpu", "gateway", "µs", False, list(values)))

    assert [each.is_better for each in compare(cpu(10, 11), cpu(5, 6))] == [True]


def test_what_lies_within_the_spread_is_no_change() -> None:
    assert compare(run(row("gateway", 10, 14, 12)), run(row("gateway", 13, 19, 16))) == []


def test_a_machine_that_is_slower_as_a_whole_is_no_change() -> None:
    before = run(row("gateway", 10, 10), row("nginx", 20, 20))
    after = run(row("gateway", 5, 5), row("nginx", 10, 10))
    assert compare(before, after) == []


def test_a_single_round_has_no_spread_and_is_not_compared() -> None:
    assert compare(run(row("gateway", 10)), run(row("gateway", 20))) == []


def test_goals_are_judged_by_value_by_ratio_and_by_what_is_allowed_on_top() -> None:
    found = run(row("gateway", 30, 30), row("nginx", 40, 40), row("commit", 25, 25))
    by_value = Goal("", "requests", "requests", "GET", 35)
    by_ratio = Goal("", "requests", "requests", "GET", 0.8, over="nginx", at_least=True)
    on_top = Goal("", "requests", "requests", "GET", 6, plus="commit")
    absent = Goal("", "requests", "requests", "POST", 6)
    assert [judge(found, goal).met for goal in (by_value, by_ratio, on_top, absent)] == [
        True,
        False,
        True,
        None,
    ]
    assert judge(found, on_top).limit == 31


def test_every_goal_is_of_a_figure_and_a_measure_that_there_are() -> None:
    measures = {(figure.name, measure) for figure in FIGURES for measure in figure.measures}
    assert {(goal.figure, goal.measure) for goal in GOALS} <= measures


def test_every_chart_is_of_a_measure_that_there_is() -> None:
    assert [figure.name for figure in FIGURES if not set(figure.charted) <= set(figure.measures)] == []


def test_a_chart_is_well_formed_whatever_its_title(tmp_path: Path) -> None:
    found = run(row("gateway", 10, 12), row("nginx", 20, 22))
    (file,) = charts.save(found, {"requests": ("requests", "cpu")}, tmp_path)
    assert file.name == "requests-requests.svg"
    texts = [node.text for node in ET.fromstring(file.read_text()).iter() if node.tag.endswith("text")]
    assert "Pass-through <saturated>: requests/s" in texts
    assert "11" in texts


def test_the_table_has_each_subject_with_its_ratio() -> None:
    lines = list(table.table(run(row("gateway", 10, 12), row("nginx", 20, 20))))
    assert any("gateway" in line and "11 [10–12]" in line and "× 0.55 [0.5–0.6]" in line for line in lines)


def test_figures_are_chosen_by_name_and_a_wrong_name_is_said() -> None:
    assert [each.name for each in chosen("latency,requests", growth=False, short=True)] == [
        "requests",
        "latency",
    ]
    with pytest.raises(ValueError, match="no figure is called speed"):
        chosen("speed", growth=False, short=True)


def test_growth_is_measured_only_when_asked_for() -> None:
    usual = [each.name for each in chosen("", growth=False, short=False)]
    assert "growth" not in usual
    assert [each.name for each in chosen("", growth=True, short=False)] == [
        *usual,
        "growth",
        "history",
        "day",
    ]
