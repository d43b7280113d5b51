"""Which fragments of a chat stream are one call: what engines really send, by the rules that decide it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.upstream import UpstreamClosed, UpstreamFrames
from gateway.wire.answers.readers import ChatReader
from gateway.wire.chat import tool_calls
from gateway.wire.chat.arguments import Arguments
from gateway.wire.chat.fields import VENDOR_FIELDS
from gateway.wire.chat.request import ChatOptions, chat_body
from gateway.wire.chat.tool_calls import RULES, FragmentRule
from gateway.wire.chat.tools import Tools
from gateway.wire.sse import Frame, SseDecoder
from tests.core.conftest import Played, StrictReader
from tests.wire.chat_play import begin, chunk, run, shape, stream, validate

END = chunk(finish="tool_calls")
A1, B2 = '{"a":1}', '{"b":2}'


def fragment(
    name: str | None = None, arguments: Any = None, id: str | None = None, index: Any = 0, **more: Any
) -> dict[str, Any]:
    """One fragment; what is None is left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    sent = {"index": index, "id": id, "type": "function", "function": function, **more}
    return {key: value for key, value in sent.items() if value is not None}


def play(*chunks: dict[str, Any] | list[dict[str, Any]], **request: Any) -> Played:
    """The run of a stream; a list is a chunk with several fragments."""
    deltas = [chunk({"tool_calls": each if isinstance(each, list) else [each]}) for each in chunks]
    played = run(stream([*deltas, END]), **request)
    validate(played)
    return played


def made(*chunks: dict[str, Any] | list[dict[str, Any]], **request: Any) -> list[tuple[str, str]]:
    """The calls of a stream that ends well: name and arguments."""
    played = play(*chunks, **request)
    assert played.final["status"] == "completed"
    return [(name, text) for _, name, text in shape(played.final["output"])]


LOOK = [("look", A1)]
BOTH = [("look", A1), ("hear", B2)]
TWICE = [("look", A1), ("look", B2)]

EXAMPLES: dict[str, tuple[list[Any], list[tuple[str, str]]]] = {
    "by the book": (
        [fragment("look", "", "c1"), fragment(None, '{"a"'), fragment(None, ":1}")],
        LOOK,
    ),
    "interleaved": (
        [
            [fragment("look", '{"a"', "c1", 0), fragment("hear", '{"b"', "c2", 1)],
            [fragment(None, ":1}", None, 0), fragment(None, ":2}", None, 1)],
        ],
        BOTH,
    ),
    "one object in place of a list": (
        [fragment("look", '{"a"', ""), fragment(None, ":1}", "")],
        LOOK,
    ),
    "name in pieces": ([fragment("lo", "", "c1"), fragment("ok"), fragment(None, A1)], LOOK),
    "name in pieces, with an id each": (
        [fragment("lo", "", "c1"), fragment("ok", "", "c1"), fragment(None, A1)],
        LOOK,
    ),
    "last piece of the name with arguments": (
        [fragment("lo", "", "c1"), fragment("ok", '{"a"'), fragment(None, ":1}")],
        LOOK,
    ),
    "name so far in each": ([fragment("lo"), fragment("look"), fragment("look", A1)], LOOK),
    "name in each, id in the first": (
        [fragment("look", "", "c1"), fragment("look", '{"a"'), fragment("look", ":1}"), fragment("look", "")],
        LOOK,
    ),
    "id and name in each": ([fragment("look", '{"a"', "c1"), fragment("look", ":1}", "c1")], LOOK),
    "id in each": ([fragment("look", '{"a"', "c1"), fragment(None, ":1}", "c1")], LOOK),
    "another id in each": (
        [fragment("look", '{"a"', "c1"), fragment(None, ":1", "c2"), fragment(None, "}", "c3")],
        LOOK,
    ),
    "name after arguments": ([fragment(None, '{"a"', "c1"), fragment("look"), fragment(None, ":1}")], LOOK),
    "id after the name": ([fragment("look"), fragment(None, A1, "c1")], LOOK),
    "nulls after the first": (
        [
            fragment("look", '{"a"', "c1"),
            {"index": 0, "id": None, "function": {"name": None, "arguments": ":1}"}},
        ],
        LOOK,
    ),
    "index 0 for all": ([fragment("look", A1, "c1"), fragment("hear", B2, "c2")], BOTH),
    "index 0 for all, in pieces": (
        [fragment("look", "", "c1"), fragment(None, A1), fragment("hear", "", "c2"), fragment(None, B2)],
        BOTH,
    ),
    "index 0 for all, no ids": ([fragment("look", A1), fragment("hear", B2)], BOTH),
    "no index": ([fragment("look", A1, "c1", None), fragment("hear", B2, "c2", None)], BOTH),
    "no index, in pieces": (
        [
            fragment("look", '{"a"', "c1", None),
            fragment(None, ":1}", None, None),
            fragment("hear", '{"b"', "c2", None),
            fragment(None, ":2}", None, None),
        ],
        BOTH,
    ),
    "no index, several in one chunk": (
        [[fragment("look", A1, "c1", None), fragment("hear", B2, "c2", None)]],
        BOTH,
    ),
    "no index, several in each chunk": (
        [
            [fragment("look", '{"a"', "c1", None), fragment("hear", '{"b"', "c2", None)],
            [fragment(None, ":1}", None, None), fragment(None, ":2}", None, None)],
        ],
        BOTH,
    ),
    "no index, told apart by id": (
        [
            [fragment("look", '{"a"', "c1", None), fragment("hear", '{"b"', "c2", None)],
            fragment(None, ":2}", "c2", None),
            fragment(None, ":1}", "c1", None),
        ],
        BOTH,
    ),
    "no index, all pieces of one call in one chunk": (
        [[fragment("look", '{"a"', "c1", None), fragment(None, ":1}", None, None)]],
        LOOK,
    ),
    "pieces of one call in one chunk": ([[fragment("look", '{"a"', "c1"), fragment(None, ":1}")]], LOOK),
    "index from 1": ([fragment("look", A1, "c1", 1), fragment("hear", B2, "c2", 2)], BOTH),
    "index as a string": ([fragment("look", '{"a"', "c1", "0"), fragment(None, ":1}", None, "0")], LOOK),
    "index as a float": ([fragment("look", '{"a"', "c1", 0.0), fragment(None, ":1}", None, 0)], LOOK),
    "index that counts fragments": (
        [fragment("look", '{"a"', "c1", 0), fragment(None, ":1}", "c1", 1)],
        LOOK,
    ),
    "same tool twice, no ids": ([fragment("look", A1), fragment("look", B2)], TWICE),
    "same tool twice, one id": ([fragment("look", A1, "c1"), fragment("look", B2, "c1")], TWICE),
    "another name after arguments were cut": ([fragment("look", A1[:-1]), fragment("hear", B2)], []),
    "two names without arguments": ([fragment("look"), fragment("hear", B2)], [("look", "{}"), ("hear", B2)]),
    "arguments as an object": ([fragment("look", {"a": 1}, "c1")], LOOK),
    "arguments as an object after an empty text": (
        [fragment("look", "", "c1"), fragment(None, {"a": 1})],
        LOOK,
    ),
    "an empty object first": (
        [fragment("look", "{}", "c1"), fragment(None, '{"a"'), fragment(None, ":1}")],
        LOOK,
    ),
    "all so far in each": (
        [fragment("look", "", "c1"), *(fragment(None, A1[:end]) for end in (1, 2, 4, 6, 7, 7))],
        LOOK,
    ),
    "all of it again at the end": (
        [fragment("look", '{"a"', "c1"), fragment(None, ":1}"), fragment(None, A1)],
        LOOK,
    ),
    "all of it twice, with the id": ([fragment("look", A1, "c1"), fragment("look", A1, "c1")], LOOK),
    "all of it again as JSON within JSON": (
        [fragment("look", A1, "c1"), fragment("look", '"{\\"a\\": 1}"', "c1")],
        LOOK,
    ),
    "JSON within JSON": ([fragment("look", '"{\\"a\\":1}"', "c1")], LOOK),
    "twice in one text": ([fragment("look", A1 + A1, "c1")], LOOK),
    "null": ([fragment("look", "null", "c1")], [("look", "{}")]),
    "nothing": ([fragment("look", "", "c1")], [("look", "{}")]),
    "name and arguments beside the id": ([{"id": "c1", "name": "look", "arguments": {"a": 1}}], LOOK),
    "parameters": ([{"index": 0, "function": {"name": "look", "parameters": {"a": 1}}}], LOOK),
    "a custom tool, by name": (
        [{"index": 0, "type": "custom", "custom": {"name": "look", "input": A1}}],
        LOOK,
    ),
}


@pytest.mark.parametrize(("sent", "expected"), EXAMPLES.values(), ids=list(EXAMPLES))
def test_what_engines_send_is_the_calls_that_they_mean(
    sent: list[Any], expected: list[tuple[str, str]]
) -> None:
    if expected:
        assert made(*sent) == expected
    else:
        names = [item["name"] for item in play(*sent).final["output"]]
        assert names == ["look", "hear"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.says)
def test_every_rule_decides_some_example(rule: FragmentRule, monkeypatch: pytest.MonkeyPatch) -> None:
    spoke: list[bool] = []

    def heard(*given: Any) -> bool:
        fits = rule.fits(*given)
        spoke.append(fits)
        return fits

    spying = [replace(each, fits=heard) if each is rule else each for each in RULES]
    monkeypatch.setattr(tool_calls, "RULES", tuple(spying))
    for sent, _ in EXAMPLES.values():
        play(*sent)
    made(fragment("look"), fragment("hear"), tools=[{"type": "custom", "name": n} for n in ("look", "hear")])
    assert any(spoke)
    assert rule.who


def test_name_of_another_declared_tool_is_another_call_and_no_piece() -> None:
    known = [{"type": "custom", "name": name} for name in ("look", "hear", "look_up")]
    both = [fragment("look", "", None), fragment("hear", "", None)]
    assert made(*both, tools=known) == [("look", ""), ("hear", "")]
    assert made(*both) == [("lookhear", "{}")]  # nobody can tell
    pieces = [fragment("look", "", "c1"), fragment("_up"), fragment(None, '{"input":"x"}')]
    assert made(*pieces, tools=known) == [("look_up", "x")]


# -- ids


def ids(*chunks: Any) -> list[str]:
    return [item["call_id"] for item in play(*chunks).final["output"]]


def test_ids_are_the_backends_where_it_has_any() -> None:
    assert ids(fragment("look", A1, "c1", 0), fragment("hear", B2, "c2", 1)) == ["c1", "c2"]


def test_id_in_pieces_is_put_together() -> None:
    assert ids(fragment("look", "", "call_"), fragment(None, None, "abc"), fragment(None, A1)) == ["call_abc"]


def test_unstable_id_is_the_first_one() -> None:
    assert ids(fragment("look", '{"a"', "c1"), fragment(None, ":1}", "c2")) == ["c1"]


@pytest.mark.parametrize("given_ids", [(None, None), ("", ""), ("c", "c")])
def test_ids_that_are_missing_or_the_same_are_made_different(given_ids: tuple[str | None, ...]) -> None:
    first, second = ids(fragment("look", A1, given_ids[0], 0), fragment("hear", B2, given_ids[1], 1))
    assert first
    assert second
    assert first != second


def test_output_of_a_call_goes_to_its_turn_where_ids_are_counted_anew_in_each() -> None:
    items: list[dict[str, Any]] = []
    for turn in ("one", "two"):
        items += [
            {"role": "user", "content": turn},
            {"type": "function_call", "call_id": "call_0", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_0", "output": f"out {turn}"},
        ]
    sent = orjson.loads(chat_body({"model": "tiny"}, input=items, options=ChatOptions()))["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"] * 2
    assert [message["content"] for message in sent if message["role"] == "tool"] == ["out one", "out two"]


# -- what else a call has


@pytest.mark.parametrize("name", VENDOR_FIELDS)
@pytest.mark.parametrize("is_inside", [False, True])
def test_data_of_a_vendor_is_kept_on_the_item_as_it_was_sent(name: str, is_inside: bool) -> None:
    data: Any = {"google": {"thought_signature": "c2ln"}} if name == "extra_content" else "c2ln"
    sent = fragment("look", A1, "c1")
    (sent["function"] if is_inside else sent)[name] = data
    played = play(sent, fragment("hear", B2, "c2", 1))
    look, hear = played.final["output"]
    assert look[name] == data
    assert name not in hear
    assert not played.machine.notices


def test_data_of_a_vendor_that_comes_late_is_on_the_done_item() -> None:
    (item,) = play(
        fragment("look", A1, "c1"), fragment(None, "", None, extra_content={"x": {"y": "z"}})
    ).final["output"]
    assert item["extra_content"] == {"x": {"y": "z"}}


def test_fields_of_the_declared_tool_are_all_on_the_item() -> None:
    tools = Tools(items={"sea__look": {"type": "function_call", "name": "look", "namespace": "sea"}})
    reader = ChatReader("resp_1", tools)
    delta = chunk({"tool_calls": [fragment("sea__look", A1, "c1")]})
    added, *_ = reader.read(Frame("", orjson.dumps(delta)))
    item = {name: added["item"][name] for name in ("type", "name", "namespace", "call_id")}
    assert item == {"type": "function_call", "name": "look", "namespace": "sea", "call_id": "c1"}


def test_legacy_call_beside_the_same_call_is_made_once() -> None:
    function = {"name": "look", "arguments": A1}
    sent = chunk({"tool_calls": [fragment("look", A1, "c1")], "function_call": function})
    played = run(stream([sent, END]))
    assert shape(played.final["output"]) == [("function_call", "look", A1)]
    assert not played.machine.notices


# -- streaming


def deltas(*chunks: Any) -> list[str]:
    return [e["delta"] for e in play(*chunks).events if e["type"].endswith("arguments.delta")]


def test_arguments_are_shown_as_they_come() -> None:
    assert deltas(fragment("look", "", "c1"), *(fragment(None, part) for part in ('{"a', '":', "1}"))) == [
        '{"a',
        '":',
        "1}",
    ]


def test_of_all_so_far_only_what_is_new_is_shown() -> None:
    assert deltas(fragment("look", '{"a', "c1"), fragment(None, '{"a":'), fragment(None, A1)) == [
        '{"a',
        '":',
        "1}",
    ]


def test_object_within_an_object_that_begins_alike_is_no_repetition() -> None:
    nested = '{"a":{"a":{"a":1}}}'
    pieces = ['{"a":', '{"a":', '{"a":1}}', "}"]
    assert made(fragment("look", "", "c1"), *(fragment(None, piece) for piece in pieces)) == [
        ("look", nested)
    ]


def test_call_is_announced_when_its_name_is_complete() -> None:
    played = play(fragment("lo", "", "c1"), fragment("ok"), fragment("hear", B2, "c2", 1))
    added = [e["item"]["name"] for e in played.events if e["type"] == "response.output_item.added"]
    assert added == ["look", "hear"]


# -- properties


@given(
    value=st.dictionaries(st.text(max_size=3), st.text(max_size=3) | st.integers(-9, 9), max_size=3),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_arguments_in_any_pieces_or_all_so_far_come_out_as_they_were(value: Any, data: st.DataObject) -> None:
    text = orjson.dumps(value).decode()
    ends = sorted({*data.draw(st.lists(st.integers(1, len(text)), max_size=4)), len(text)})
    pieces = [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    so_far = [text[:end] for end in ends]
    for sent in (pieces, so_far):
        arguments = Arguments()
        shown = [arguments.add(piece) for piece in sent]
        assert arguments.final() == text
        is_plain = sent is pieces or not any(each.rstrip().endswith((":", ",", "[")) for each in so_far)
        if is_plain:
            assert text.startswith("".join(shown))


@given(
    pieces=st.lists(st.text('{}[]":,a1 ', max_size=4), max_size=6),
    names=st.lists(st.sampled_from(["look", "hear", "lo", "", None]), max_size=6),
    given_ids=st.lists(st.sampled_from(["c1", "c2", "", None]), max_size=6),
    indexes=st.lists(st.sampled_from([0, 1, None, "0", -1, 1.5]), max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_no_fragments_make_a_stream_that_clients_refuse(
    pieces: list[str], names: list[str | None], given_ids: list[str | None], indexes: list[Any]
) -> None:
    fragments = [
        fragment(name, piece, id, index)
        for piece, name, id, index in zip(pieces, names, given_ids, indexes, strict=False)
    ]
    deltas = [chunk({"tool_calls": [each]}) for each in fragments]
    played = begin()
    played.receive(UpstreamFrames(SseDecoder(2**20).feed(stream([*deltas, END]))), UpstreamClosed())
    StrictReader(False).read(played.events)  # the last word of an engine that repeats itself counts
    validate(played)
    for item in played.final["output"]:
        assert item["name"]
        if item["status"] == "completed":
            orjson.loads(item["arguments"])
