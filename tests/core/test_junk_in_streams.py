"""Streams with anything in the place of anything: both official clients read what becomes of them.

The Python client's own accumulator reads each stream; the strict reader stands for the Node client's. Values
are of other types, missing, null; events come twice, in another place, or not at all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import omit
from openai._models import construct_type_unchecked
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent

# The client warns of parts that its types do not have (audio), and keeps them.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")

Event = dict[str, Any]

TEXT = {
    "type": "output_text",
    "text": "Hi",
    "annotations": [{"type": "file_path", "file_id": "f", "index": 0}],
}
ITEMS: list[dict[str, Any]] = [
    {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [TEXT]},
    {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]},
    {"type": "function_call", "id": "fc_1", "call_id": "c_1", "name": "look", "arguments": '{"a":1}'},
    {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c_2", "name": "run", "input": "ls"},
    {
        "type": "mcp_call",
        "id": "mcp_1",
        "name": "find",
        "server_label": "s",
        "arguments": '{"q":1}',
        "output": "x",
    },
    {"type": "code_interpreter_call", "id": "ci_1", "code": "1+1", "container_id": "k", "outputs": None},
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}},
    {
        "type": "shell_call",
        "id": "sh_1",
        "call_id": "c_3",
        "action": {"commands": ["ls"]},
        "status": "completed",
    },
    {"type": "shell_call_output", "id": "sho_1", "call_id": "c_3", "output": [], "status": "completed"},
    {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "aGk="},
    {
        "type": "tool_search_call",
        "id": "tsc_1",
        "call_id": "c_4",
        "execution": "client",
        "arguments": {"g": 1},
    },
    {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": []},
    {"type": "search_results", "results": [{"id": 1}]},
    {
        "type": "message",
        "id": "msg_2",
        "role": "assistant",
        "content": [{"type": "output_audio", "data": "aGk="}],
    },
]
EMPTY = {
    "content": [],
    "arguments": "",
    "input": "",
    "code": "",
    "status": "in_progress",
    "action": {"commands": []},
}
PIECES: dict[str, list[Event]] = {
    "message": [
        {"type": "response.content_part.added", "content_index": 0, "part": {**TEXT, "text": ""}},
        {"type": "response.output_text.delta", "content_index": 0, "delta": "H", "logprobs": []},
        {"type": "response.output_text.delta", "content_index": 0, "delta": "i", "logprobs": None},
        {"type": "response.output_text.annotation.added", "annotation": TEXT["annotations"][0]},
        {"type": "response.output_text.done", "content_index": 0, "text": "Hi"},
        {"type": "response.content_part.done", "content_index": 0, "part": TEXT},
    ],
    "reasoning": [
        {"type": "response.reasoning_text.delta", "content_index": 0, "delta": "Hm"},
        {"type": "response.reasoning_summary_text.delta", "summary_index": 0, "delta": "So"},
        {"type": "response.reasoning_text.done", "content_index": 0, "text": "Hm"},
    ],
    "function_call": [
        {"type": "response.function_call_arguments.delta", "delta": '{"a"'},
        {"type": "response.function_call_arguments.delta", "delta": ":1}"},
        {"type": "response.function_call_arguments.done", "arguments": '{"a":1}', "name": "look"},
    ],
    "custom_tool_call": [{"type": "response.custom_tool_call_input.delta", "delta": "ls"}],
    "mcp_call": [
        {"type": "response.mcp_call.in_progress"},
        {"type": "response.mcp_call_arguments.delta", "delta": '{"q":1}'},
        {"type": "response.mcp_call.completed"},
    ],
    "code_interpreter_call": [
        {"type": "response.code_interpreter_call_code.delta", "delta": "1+1"},
        {"type": "response.code_interpreter_call.interpreting"},
    ],
    "web_search_call": [{"type": "response.web_search_call.searching"}],
    "shell_call": [
        {"type": "response.shell_call_command.added", "command_index": 0, "command": ""},
        {"type": "response.shell_call_command.delta", "command_index": 0, "delta": "ls"},
    ],
    "shell_call_output": [
        {"type": "response.shell_call_output_content.delta", "command_index": 0, "delta": {"stdout": "a"}}
    ],
    "image_generation_call": [
        {
            "type": "response.image_generation_call.partial_image",
            "partial_image_b64": "aA==",
            "partial_image_index": 0,
        }
    ],
}


def told(items: list[dict[str, Any]]) -> list[Event]:
    """A whole stream of these items."""
    events: list[Event] = [
        {"type": "response.created", "response": {"id": "resp_x", "status": "in_progress"}}
    ]
    for number, item in enumerate(items):
        place = {"item_id": item.get("id"), "output_index": number}
        opening = {name: EMPTY.get(name, value) for name, value in item.items()}
        events.append({"type": "response.output_item.added", "output_index": number, "item": opening})
        events += [{**event, **place} for event in PIECES.get(item["type"], [])]
        events.append({"type": "response.output_item.done", "output_index": number, "item": item})
    final = {"id": "resp_x", "status": "completed", "output": items}
    return copy.deepcopy([*events, {"type": "response.completed", "response": final}])


JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", "x", 0, -1, 7, 1.5, True, [], {}, [None], [[]], ["x"], {"type": 5}, {"type": "message"}, [{}]]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all that is in a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [(*path, name) for name, _ in inner]
    return found + [deeper for name, child in list(inner) for deeper in places(child, (*path, name))]


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """A stream in which some things are not as they should be."""
    chosen = draw(st.lists(st.sampled_from(ITEMS), min_size=1, max_size=4, unique_by=lambda item: str(item)))
    events = told(chosen)
    for _ in range(draw(st.integers(0, 6))):
        *path, name = draw(st.sampled_from(places(events)))
        holder: Any = events
        for step in path:
            holder = holder[step]
        match draw(st.sampled_from(["junk", "gone", "again", "later"])):
            case "junk":
                holder[name] = draw(JUNK)
            case "gone":
                del holder[name]
            case "again" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[name]))
            case "later" if isinstance(holder, list):
                holder.append(holder.pop(name))
            case _:
                pass
        if not events:
            break
    return [event for event in events if isinstance(event, dict)]


def body_of(events: list[Event]) -> bytes:
    return b"".join(b"data: %b\n\n" % orjson.dumps(event) for event in events)


def read_by_the_python_client(events: list[Event]) -> None:
    """As `client.responses.stream` reads it. Raises what the client raises."""
    state: ResponseStreamState[None] = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in events:
        read: Any = construct_type_unchecked(type_=cast(Any, ResponseStreamEvent), value=event)
        state.handle_event(read)


def test_stream_without_a_fault_is_shown_as_it_is(
    ran: Callable[..., Any], check: Callable[..., None]
) -> None:
    played = ran(body_of(told(ITEMS)))
    check(played.events)
    read_by_the_python_client(played.events)
    assert [item["type"] for item in played.final["output"]] == [item["type"] for item in ITEMS]


@given(events=streams())
@settings(max_examples=250, deadline=None)
def test_junk_anywhere_is_read_by_both_official_clients(
    events: list[Event], ran: Callable[..., Any], check: Callable[..., None]
) -> None:
    played = ran(body_of(events))
    check(played.events, is_true=False)
    read_by_the_python_client(played.events)


@pytest.mark.parametrize("kind", [item["type"] for item in ITEMS])
def test_item_that_says_nothing_but_its_type_is_made_whole(
    kind: str, ran: Callable[..., Any], check: Callable[..., None]
) -> None:
    events = told([{"type": kind}])
    played = ran(body_of(events))
    check(played.events)
    read_by_the_python_client(played.events)
