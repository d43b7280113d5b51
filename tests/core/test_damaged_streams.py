"""Streams with what real servers get wrong: a strict client accepts what becomes of them; no text is lost.

A `Turn` is what a model said. `told` tells it as the specification has it, and each function in `DAMAGE`
spoils that in the way of some server. Faults that together leave nothing to tell two items by are not
combined.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, get_args

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent

Event = dict[str, Any]
Turn = list[dict[str, Any]]
"""Items: `{"type", "parts": [(part type, [piece, …]), …]}` or, of calls, `{"type", "pieces": […]}`."""

CLASSES = {
    name: kind
    for kind in get_args(get_args(ResponseStreamEvent)[0])
    for name in get_args(kind.model_fields["type"].annotation)
}
CALLS = {
    "function_call": ("arguments", "function_call_arguments"),
    "custom_tool_call": ("input", "custom_tool_call_input"),
}
EVENTS = {
    "output_text": "output_text",
    "refusal": "refusal",
    "reasoning_text": "reasoning_text",
    "summary_text": "reasoning_summary_text",
}

pieces = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=3)


def cut(text: str, at: int) -> list[str]:
    return [piece for piece in (text[:at], text[at:]) if piece]


arguments = st.builds(cut, st.text(max_size=6).map(lambda text: json.dumps({"a": text})), st.integers(0, 12))
"""JSON, in pieces: what a call is, if it is whole."""


def parts(kind: str, most: int) -> st.SearchStrategy[list[tuple[str, list[str]]]]:
    return st.lists(st.tuples(st.just(kind), pieces), max_size=most)


def item(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), **fields})


def joined(*lists: st.SearchStrategy[list[Any]]) -> st.SearchStrategy[list[Any]]:
    return st.tuples(*lists).map(lambda several: [one for part in several for one in part])


turns = st.lists(
    st.one_of(
        item("message", parts=joined(parts("output_text", 1), parts("refusal", 1)).filter(bool)),
        item("reasoning", parts=joined(parts("summary_text", 2), parts("reasoning_text", 2)).filter(bool)),
        item("function_call", pieces=arguments),
        item("custom_tool_call", pieces=pieces),
    ),
    min_size=1,
    max_size=4,
)


def part_of(kind: str, text: str) -> dict[str, Any]:
    if kind == "output_text":
        return {"type": kind, "text": text, "annotations": [], "logprobs": []}
    return {"type": kind, "refusal" if kind == "refusal" else "text": text}


def whole(said: dict[str, Any], number: int) -> dict[str, Any]:
    """The finished item."""
    kind = said["type"]
    if kind in CALLS:
        call = {"call_id": f"call_{number}", "name": "look", CALLS[kind][0]: "".join(said["pieces"])}
        return {"type": kind, "id": f"it_{number}", "status": "completed", **call}
    shown: dict[str, Any] = {"type": kind, "id": f"it_{number}", "content": []}
    more: dict[str, Any] = {"role": "assistant", "status": "completed"}
    shown |= more if kind == "message" else {"summary": []}
    for part_type, text in said["parts"]:
        holder = "summary" if part_type == "summary_text" else "content"
        shown[holder].append(part_of(part_type, "".join(text)))
    return shown


def told_item(said: dict[str, Any], number: int) -> list[Event]:
    final = whole(said, number)
    place = {"item_id": final["id"], "output_index": number}
    opening = copy.deepcopy(final) | {"status": "in_progress"}
    for holder in ("content", "summary"):
        if holder in opening:
            opening[holder] = []
    events: list[Event] = []
    if (kind := said["type"]) in CALLS:
        key, base = CALLS[kind]
        opening[key] = ""
        events += [{"type": f"response.{base}.delta", **place, "delta": piece} for piece in said["pieces"]]
        events.append({"type": f"response.{base}.done", **place, key: final[key]})
        if kind == "function_call":
            events[-1]["name"] = "look"
    counts = {"content": 0, "summary": 0}
    for part_type, text in said.get("parts", ()):
        holder = "summary" if part_type == "summary_text" else "content"
        spot = {**place, f"{holder}_index": counts[holder]}
        counts[holder] += 1
        base, about = "content_part" if holder == "content" else "reasoning_summary_part", EVENTS[part_type]
        key = "refusal" if part_type == "refusal" else "text"
        events.append({"type": f"response.{base}.added", **spot, "part": part_of(part_type, "")})
        events += [{"type": f"response.{about}.delta", **spot, "delta": piece} for piece in text]
        events.append({"type": f"response.{about}.done", **spot, key: "".join(text)})
        events.append({"type": f"response.{base}.done", **spot, "part": part_of(part_type, "".join(text))})
    added = {"type": "response.output_item.added", "output_index": number, "item": opening}
    return [added, *events, {"type": "response.output_item.done", "output_index": number, "item": final}]


def told(turn: Turn, *, is_interleaved: bool = False) -> list[Event]:
    """The whole stream, as the specification has it; interleaved: all items grow at the same time."""
    streams = [told_item(said, number) for number, said in enumerate(turn)]
    response = {"id": "resp_theirs", "object": "response", "status": "in_progress", "output": []}
    events: list[Event] = [{"type": "response.created", "response": response}]
    if is_interleaved:
        events += [stream.pop(0) for stream in streams]
        while any(streams):
            events += [stream.pop(0) for stream in streams if stream]
    else:
        events += [event for stream in streams for event in stream]
    output = [whole(said, number) for number, said in enumerate(turn)]
    done = {**response, "status": "completed", "output": output}
    events.append({"type": "response.completed", "response": done})
    return [{**event, "sequence_number": number} for number, event in enumerate(copy.deepcopy(events))]


def without(key: str) -> Callable[[list[Event]], list[Event]]:
    return lambda events: [{name: v for name, v in event.items() if name != key} for event in events]


def silent(*endings: str) -> Callable[[list[Event]], list[Event]]:
    return lambda events: [event for event in events if not event["type"].endswith(endings)]


def renamed(old: str, new: str) -> Callable[[list[Event]], list[Event]]:
    """Of reasoning only: vLLM's name for its parts."""

    def rename(events: list[Event]) -> list[Event]:
        for event in events:
            if event.get("part", {}).get("type") == "reasoning_text":
                event["type"] = event["type"].replace(old, new)
        return events

    return rename


def in_items(key: str, value: Any) -> Callable[[list[Event]], list[Event]]:
    """Every item, streamed and final, has this value (or, for None, lacks the key)."""

    def change(events: list[Event]) -> list[Event]:
        output = events[-1]["response"].get("output") or []
        for known in [*output, *(event["item"] for event in events if "item" in event)]:
            if key in known:
                known[key] = value
                if value is None:
                    del known[key]
        return events

    return change


def everywhere(key: str, value: Any) -> Callable[[list[Event]], list[Event]]:
    return lambda events: [{**event, key: value} if key in event else event for event in events]


def counted_across_items(events: list[Event]) -> list[Event]:
    """vLLM: each opened part has a number one higher, whatever its item; its deltas may be one ahead."""
    number = -1
    for event in events:
        if "content_index" in event:
            number += event["type"].endswith("content_part.added")
            event["content_index"] = number + event["type"].endswith(".delta")
    return events


def same_ids(events: list[Event]) -> list[Event]:
    return in_items("id", "it")(everywhere("item_id", "it")(events))


def same_call_ids(events: list[Event]) -> list[Event]:
    return in_items("call_id", "call")(events)


def no_ids(events: list[Event]) -> list[Event]:
    return in_items("id", None)(without("item_id")(events))


def only_in_the_end(events: list[Event]) -> list[Event]:
    return [events[0], events[-1]]


def renamed_in_the_end(events: list[Event]) -> list[Event]:
    for number, known in enumerate(events[-1]["response"]["output"]):
        known["id"] = f"other_{number}"
    return events


def reversed_in_the_end(events: list[Event]) -> list[Event]:
    events[-1]["response"]["output"].reverse()
    return events


def no_output_in_the_end(events: list[Event]) -> list[Event]:
    del events[-1]["response"]["output"]
    return events


def noise(events: list[Event]) -> list[Event]:
    """Unknown types, keep-alives, obfuscation, among everything else."""
    noisy: list[Event] = []
    for event in events:
        noisy += [{"type": "keepalive", "sequence_number": 3}, {"type": "response.reasoning.search", "x": 1}]
        noisy.append({**event, "obfuscation": "kd83"})
    return noisy


DAMAGE: dict[str, Callable[[list[Event]], list[Event]]] = {
    "no output_index": without("output_index"),
    "no content_index": without("content_index"),
    "no summary_index": without("summary_index"),
    "no sequence_number": without("sequence_number"),
    "no item_id": without("item_id"),
    "no ids at all": no_ids,
    "same ids": same_ids,
    "same call ids": same_call_ids,
    "no call ids": in_items("call_id", None),
    "same index": everywhere("output_index", 0),
    "content counted across items": counted_across_items,
    "vLLM's reasoning parts": renamed("content_part", "reasoning_part"),
    "no item.added": silent("output_item.added"),
    "no part.added": silent("_part.added"),
    "no text.done": silent("_text.done", "refusal.done"),
    "no part.done": silent("_part.done"),
    "no arguments.done": silent("arguments.done", "input.done"),
    "no item.done": silent("output_item.done"),
    "no deltas": silent(".delta"),
    "all only in the end": only_in_the_end,
    "other ids in the end": renamed_in_the_end,
    "other order in the end": reversed_in_the_end,
    "no output in the end": no_output_in_the_end,
    "noise": noise,
}
_NAMELESS = {"no item_id", "no ids at all", "same ids"}
_NUMBERLESS = {"no output_index", "same index"}
_UNNAMED_IN_THE_END = {"other ids in the end", "no ids at all", "same ids"}


def is_decidable(faults: set[str], is_interleaved: bool) -> bool:
    """Whether the stream still says which text is whose."""
    is_anonymous = bool(faults & _NAMELESS) and bool(faults & _NUMBERLESS)
    if "same ids" in faults and faults & _NUMBERLESS:  # an item that is done is still named by its id
        return False
    if is_anonymous and (is_interleaved or {"no item.added", "no item.done"} <= faults):
        return False
    is_unending = is_interleaved or "no item.done" in faults
    if is_unending and "no item.added" in faults and faults & {"same ids", "same index"}:
        return False
    if is_interleaved and "no item.added" in faults and faults & {"no deltas", "same call ids"}:
        return False  # ids may change, and the text of the open item may be the beginning of the next one's
    if {"no part.added", "no text.done"} <= faults:  # the next part of an item cannot be told from the last
        return False
    is_other_in_the_end = "other order in the end" in faults and faults & _UNNAMED_IN_THE_END
    if is_other_in_the_end or is_anonymous:
        # Then the final output says nothing of open items.
        if faults & {"no item.done", "other order in the end"} and "no deltas" in faults:
            return False
        if {"no item.done", "other order in the end"} <= faults:
            return False
    said_in_the_end = {"no deltas", "no item.done", "no text.done", "no part.done", "no arguments.done"}
    return "no output in the end" not in faults or not faults & {*said_in_the_end, "all only in the end"}


def shape(output: list[dict[str, Any]]) -> list[Any]:
    """What was said, without ids, order of keys and decoration."""
    return [
        (
            known["type"],
            known.get("arguments", known.get("input")),
            [
                (part["type"], part.get("text", part.get("refusal")))
                for part in [*known.get("summary", []), *(known.get("content") or [])]
            ],
        )
        for known in output
    ]


def body_of(events: list[Event], *, is_named_in_data: bool = True) -> bytes:
    frames = []
    for event in events:
        shown = event if is_named_in_data else {k: v for k, v in event.items() if k != "type"}
        frames.append(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(shown)))
    return b"".join(frames)


def reproduce(
    turn: Turn,
    faults: set[str],
    is_interleaved: bool,
    ran: Callable[..., Any],
    check: Callable[..., None],
    is_named_in_data: bool = True,
) -> Any:
    events = told(turn, is_interleaved=is_interleaved)
    for name, damage in DAMAGE.items():
        if name in faults:
            events = damage(events)
    played = ran(body_of(events, is_named_in_data=is_named_in_data))
    check(played.events)
    assert played.final["status"] == "completed"
    expected = shape([whole(said, number) for number, said in enumerate(turn)])
    if "same call ids" in faults and "no call ids" not in faults:
        # a call that says the same under the same call_id is the same
        first = next((n for n, known in enumerate(expected) if known[0] in CALLS), 0)
        again = [
            known for known in expected[first + 1 :] if known[0] not in CALLS or known != expected[first]
        ]
        expected = [*expected[: first + 1], *again]
    got = shape(played.final["output"])
    is_in_order = not faults & {"other order in the end", "same call ids"}
    # A call whose name comes with its end has its place there.
    is_named_late = "no item.added" in faults and (is_interleaved or "no item.done" in faults)
    if not is_in_order or is_named_late:
        expected, got = sorted(expected, key=repr), sorted(got, key=repr)
    assert got == expected
    return played


SPEAKING: Turn = [
    {"type": "reasoning", "parts": [("summary_text", ["Sum", "mary"]), ("reasoning_text", ["Hm", "m"])]},
    {"type": "message", "parts": [("output_text", ["Hel", "lo"]), ("refusal", ["N", "o"])]},
    {"type": "function_call", "pieces": ['{"a":', "1}"]},
    {"type": "function_call", "pieces": ['{"b":', "2}"]},
    {"type": "custom_tool_call", "pieces": ["ra", "w"]},
    {"type": "message", "parts": [("output_text", ["Bye", "."])]},
]


@pytest.mark.parametrize("is_interleaved", [False, True], ids=["in turn", "interleaved"])
@pytest.mark.parametrize("fault", ["none", *DAMAGE])
def test_single_fault_loses_nothing(
    fault: str, is_interleaved: bool, ran: Callable[..., Any], check: Callable[..., None]
) -> None:
    if is_decidable({fault}, is_interleaved):
        reproduce(SPEAKING, {fault}, is_interleaved, ran, check)


@given(
    turn=turns,
    faults=st.sets(st.sampled_from(list(DAMAGE)), max_size=5),
    is_interleaved=st.booleans(),
    is_named_in_data=st.booleans(),
)
@example(
    turn=[
        {"type": "function_call", "pieces": ['{"a": ""}']},
        {"type": "function_call", "pieces": ['{"a": ""}']},
        {"type": "message", "parts": [("refusal", ["0"])]},
    ],
    faults={"no item.added", "same ids"},
    is_interleaved=False,
    is_named_in_data=False,
)
@settings(max_examples=120, deadline=None)
def test_several_faults_at_once_lose_nothing(
    turn: Turn,
    faults: set[str],
    is_interleaved: bool,
    is_named_in_data: bool,
    ran: Callable[..., Any],
    check: Callable[..., None],
) -> None:
    if is_decidable(faults, is_interleaved):
        reproduce(turn, faults, is_interleaved, ran, check, is_named_in_data)


@given(turn=turns, faults=st.sets(st.sampled_from(list(DAMAGE)), max_size=3))
@example(
    turn=[
        {"type": "function_call", "pieces": ['{"a": ""}']},
        {"type": "function_call", "pieces": ['{"a": "0"}']},
        {"type": "message", "parts": [("refusal", ["0"])]},
    ],
    faults={"no item.added", "same call ids"},
)
@settings(max_examples=40, deadline=None)
def test_the_official_client_has_types_for_all_of_it(
    turn: Turn, faults: set[str], ran: Callable[..., Any], check: Callable[..., None]
) -> None:
    if is_decidable(faults, False):
        played = reproduce(turn, faults, False, ran, check)
        for event in played.events:
            CLASSES[event["type"]].model_validate(event)
        Response.model_validate(played.final)


@given(turn=turns, faults=st.sets(st.sampled_from(list(DAMAGE)), max_size=24), data=st.data())
@settings(max_examples=120, deadline=None)
def test_any_mixture_in_any_order_and_cut_anywhere_is_accepted_by_a_strict_client(
    turn: Turn, faults: set[str], data: st.DataObject, ran: Callable[..., Any], check: Callable[..., None]
) -> None:
    events = told(turn, is_interleaved=True)
    for name, damage in DAMAGE.items():
        if name in faults:
            events = damage(events)
    shuffled = data.draw(st.permutations(events)) if data.draw(st.booleans()) else events
    kept = shuffled[: data.draw(st.integers(0, len(shuffled)))]
    check(ran(body_of(kept)).events, is_true=False)
