"""Tools in namespaces: their names for a chat backend, and back, in each event and in later turns."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.chat.tools import Tools, tools_of
from tests.wire.chat_play import call, chunk, run, stream, validate

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, **more}


def group(name: str, *tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "namespace", "name": name, "tools": list(tools)}


def tools(*given: dict[str, Any]) -> Tools:
    return tools_of({"tools": list(given)})


CREW = group("crew", function("hire"), {"type": "custom", "name": "speak"})


def test_a_name_is_that_of_the_namespace_and_its_own() -> None:
    assert [*tools(CREW, function("hire")).functions] == ["crew__hire", "crew__speak", "hire"]


@pytest.mark.parametrize(
    ("namespace", "name"),
    [
        ("crew", "hire.all"),
        ("crew of ships", "hire"),
        ("mannschaft", "für_alle"),
        ("n" * 40, "t" * 40),
        ("crew", "x" * 200),
    ],
)
def test_what_is_no_name_for_a_function_becomes_one_by_a_digest(namespace: str, name: str) -> None:
    (flat,) = tools(group(namespace, function(name))).functions
    assert NAME.fullmatch(flat)
    assert flat != f"{namespace}__{name}"
    (again,) = tools(group(namespace, function(name))).functions
    assert again == flat
    (other,) = tools(group(namespace, function(f"{name}."))).functions
    assert other != flat


def test_no_two_tools_have_one_name() -> None:
    colliding = [group("a__b", function("c")), group("a", function("b__c")), function("a__b__c")]
    declared = tools(*colliding)
    assert len(declared.functions) == 3
    assert declared.item_of("a__b__c") == {"type": "function_call", "name": "a__b__c"}
    called = [declared.item_of(name) for name in declared.functions]
    assert {(item.get("namespace"), item["name"]) for item in called} == {
        ("a__b", "c"),
        ("a", "b__c"),
        (None, "a__b__c"),
    }


words = st.sampled_from(["a", "b", "a__b", "b__c", "__", "x.y", "é", "n" * 70, "functions", ""]) | st.text(
    max_size=5
)
some = st.builds(
    lambda kind, name: {"type": kind, "name": name}, st.sampled_from(["function", "custom"]), words
)
groups = st.builds(lambda name, inner: group(name, *inner), words, st.lists(some, max_size=4))


@given(given=st.lists(some | groups, max_size=6))
@settings(max_examples=300, deadline=None)
def test_any_tools_have_names_of_their_own_that_lead_back_to_them(given: list[dict[str, Any]]) -> None:
    declared = tools(*given)
    assert len(set(declared.names.values())) == len(declared.names) == len(declared.functions)
    for (namespace, name), flat in declared.names.items():
        item = declared.item_of(flat)
        assert (item.get("namespace", ""), item["name"]) == (namespace, name)
        assert declared.flat_of({**item, "call_id": "c1"}) == flat
        assert declared.functions[flat]["function"]["name"] == flat
        if namespace:
            assert NAME.fullmatch(flat)


# -- later turns


def test_an_earlier_call_has_the_name_that_its_tool_has_now() -> None:
    declared = tools(CREW, function("look"))
    assert declared.flat_of({"type": "function_call", "name": "hire", "namespace": "crew"}) == "crew__hire"
    assert (
        declared.flat_of({"type": "custom_tool_call", "name": "speak", "namespace": "crew"}) == "crew__speak"
    )
    for nothing in ({}, {"namespace": None}, {"namespace": ""}):
        assert declared.flat_of({"type": "function_call", "name": "look", **nothing}) == "look"


def test_an_earlier_call_of_a_tool_that_is_not_declared_any_more_has_the_name_it_had() -> None:
    earlier = {"type": "function_call", "name": "hire", "namespace": "crew"}
    assert tools().flat_of(earlier) == "crew__hire"
    odd = {"type": "function_call", "name": "hire.all", "namespace": "crew"}
    assert [*tools(group("crew", function("hire.all"))).functions] == [tools().flat_of(odd)]


def test_an_earlier_call_does_not_take_the_name_of_another_tool() -> None:
    declared = tools(function("crew__hire"))
    flat = declared.flat_of({"type": "function_call", "name": "hire", "namespace": "crew"})
    assert NAME.fullmatch(flat)
    assert flat != "crew__hire"


def test_functions_is_how_codex_calls_the_place_outside_of_any_namespace() -> None:
    item = {"type": "function_call", "name": "look", "namespace": "functions"}
    assert tools(function("look")).flat_of(item) == "look"
    assert tools(group("functions", function("look"))).flat_of(item) == "functions__look"
    assert tools().flat_of(item) == "functions__look"


# -- answers


def test_a_call_of_a_tool_in_a_namespace_says_so_in_every_event_and_at_the_end() -> None:
    chunks = [
        chunk(call(0, "c1", "crew__hire", '{"as":')),
        chunk(call(0, None, None, ' "cook"}')),
        chunk(call(1, "c2", "crew__speak", '{"input": "Ahoy"}')),
        chunk(call(2, "c3", "look", "{}")),
        chunk({}, "tool_calls"),
    ]
    played = run(stream(chunks), tools=[CREW, function("look")])
    validate(played)
    called = [(item["type"], item["name"], item.get("namespace")) for item in played.final["output"]]
    assert called == [
        ("function_call", "hire", "crew"),
        ("custom_tool_call", "speak", "crew"),
        ("function_call", "look", None),
    ]
    named = {(e["item"]["name"], e["item"].get("namespace")) for e in played.events if "item" in e}
    assert named == {("hire", "crew"), ("speak", "crew"), ("look", None)}
    told = [e["name"] for e in played.events if e["type"] == "response.function_call_arguments.done"]
    assert told == ["hire", "look"]


def test_a_call_of_a_tool_that_an_item_brought_is_known() -> None:
    items = [
        {"type": "additional_tools", "role": "developer", "tools": [CREW]},
        {"role": "user", "content": "Hire a cook."},
    ]
    played = run(stream([chunk(call(0, "c1", "crew__hire", "{}")), chunk({}, "stop")]), input=items)
    (item,) = played.final["output"]
    assert (item["name"], item["namespace"]) == ("hire", "crew")


def test_a_name_that_nobody_declared_stays_as_it_is() -> None:
    played = run(stream([chunk(call(0, "c1", "crew__fire", "{}")), chunk({}, "stop")]), tools=[CREW])
    (item,) = played.final["output"]
    assert (item["name"], "namespace" in item) == ("crew__fire", False)
