"""Whatever a chat backend says is in the output, or told to the operator, or named by a failure."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.answers.notices import NOTICES_MAX, Notable
from gateway.wire.answers.readers import ChatReader
from gateway.wire.sse import Frame
from tests.core.conftest import Played
from tests.wire.chat_play import call, chunk, run, run_answer, shape, stream, validate

STOP = chunk(finish="stop")


def lost(played: Played) -> set[str]:
    """The fields that the operator is told of."""
    return {notice.name for notice in played.machine.notices if notice.what is Notable.UNMAPPED_FIELD}


def play(*chunks: dict[str, Any]) -> Played:
    played = run(stream(chunks))
    validate(played)
    return played


# -- where it stands


@pytest.mark.parametrize(
    ("sent", "place"),
    [
        (chunk({"weather": {"title": "Rain"}}), "delta.weather"),
        (chunk(choice={"delta": {}, "message": {"weather": "Rain"}}), "message.weather"),
        (chunk(choice={"weather": ["Rain"]}), "choice.weather"),
        (chunk(weather="Rain"), "chunk.weather"),
        (chunk({"content": [{"type": "weather", "title": "Rain"}]}), "delta.content.weather.title"),
        (chunk({"content": [{"type": "text", "text": "", "title": "Rain"}]}), "delta.content.text.title"),
        (chunk({"reasoning": {"mood": "gloomy"}}), "delta.reasoning.mood"),
        (chunk({"refusal": {"why": "Rain"}}), "delta.refusal.why"),
        (chunk({"images": [{"caption": "Rain"}]}), "delta.images.caption"),
        (chunk({"audio": "Rain"}), "delta.audio"),
        (chunk({"annotations": "Rain"}), "citations"),  # a source, and no text that has it
        (chunk({"tool_calls": "look()"}), "delta.tool_calls"),
        (chunk({"tool_calls": [{"index": 0, "note": "Rain"}]}), "tool_calls.note"),
        (chunk({"provider_specific_fields": {"weather": "Rain"}}), "delta.provider_specific_fields.weather"),
        (chunk(choice={"provider_specific_fields": {"sky": "Rain"}}), "choice.provider_specific_fields.sky"),
        (chunk({"tool_calls": ["look()"]}), "delta.tool_calls"),
        (chunk({"annotations": [{"type": "note", "note": "Rain"}]}), "delta.annotations.note"),
        (chunk(choice={"delta": ["Rain"]}), "choice.delta"),
        ({"choices": ["Rain"]}, "choices"),
        (chunk(message="Rain"), "chunk.message"),
        ({"text": "Rain"}, "chunk.text"),
        ({"choices": [], "answer": "Rain"}, "chunk.answer"),
        ({"answer": {"text": "Rain"}}, "chunk.answer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_answer_that_holds_nothing_else_fails_and_names_the_field(sent: dict[str, Any], place: str) -> None:
    played = play(sent, STOP)
    assert (played.final["status"], played.final["output"]) == ("failed", [])
    assert played.final["error"]["code"] == "server_error"
    assert place in played.final["error"]["message"]
    assert lost(played) == {place}


def test_where_there_is_other_output_it_is_only_told() -> None:
    played = play(chunk({"content": "A", "weather": "Rain"}), chunk({"weather": "Sun"}), STOP)
    assert (played.final["status"], shape(played.final["output"])) == ("completed", [("message", "A")])
    assert lost(played) == {"delta.weather"}


def test_failure_names_the_first_fields_of_many() -> None:
    played = play(*(chunk({f"field_{number:02}": "x"}) for number in range(9)), STOP)
    assert "field_00" in played.final["error"]["message"]
    assert "field_08" not in played.final["error"]["message"]
    assert len(lost(played)) == 9


def test_made_up_names_without_end_fill_no_memory() -> None:
    played = play(
        chunk({f"field_{number}": "x" for number in range(2 * NOTICES_MAX)}), chunk({"content": "A"}), STOP
    )
    assert len(played.machine.notices) == NOTICES_MAX


def test_failed_answer_keeps_its_usage_and_model() -> None:
    used = {"prompt_tokens": 3, "completion_tokens": 4}
    final = play(chunk({"weather": "Rain"}, model="tiny-2"), STOP, {"choices": [], "usage": used}).final
    assert (final["status"], final["model"], final["usage"]["total_tokens"]) == ("failed", "tiny-2", 7)


def test_stream_that_says_done_after_what_has_no_place_fails_with_its_name() -> None:
    played = play(chunk({"weather": "Rain"}))
    assert "delta.weather" in played.final["error"]["message"]


def test_answer_that_is_no_stream_is_read_alike() -> None:
    played = run_answer(b'{"choices":[{"message":{"weather":"Rain"},"finish_reason":"stop"}]}')
    assert "message.weather" in played.final["error"]["message"]


def test_answer_that_a_filter_kept_back_is_incomplete_and_not_failed() -> None:
    played = play(chunk({"weather": "Rain"}, "content_filter"))
    assert (played.final["status"], lost(played)) == ("incomplete", {"delta.weather"})


# -- what is no loss


@pytest.mark.parametrize(
    "sent",
    [
        chunk({"role": "assistant", "content": "", "refusal": None, "tool_calls": [], "audio": {}}),
        chunk({"weather": None, "clouds": "", "wind": [], "rain": {}, "sun": [{"shines": "  "}]}),
        chunk({"temperature": 12, "is_dry": True}),
        chunk(id="chatcmpl-9", object="chat.completion.chunk", system_fingerprint="fp_1", obfuscation="x3h"),
        chunk(request_id="r-1", sessionId="s-1", conversation_id="c-1"),
        chunk(provider="Somebody", choice={"native_finish_reason": "STOP", "stop_reason": "###"}),
        chunk(choice={"content_filter_results": {"hate": {"severity": "safe"}}, "matched_stop": "</s>"}),
        chunk({"extra_content": {"google": {"thought": True}}}),
        chunk(p="abcdef", x_groq={"id": "req_1"}, timings={"prompt_n": 1}),
    ],
    ids=lambda sent: "",
)
def test_answer_without_content_of_any_kind_is_empty_and_completed(sent: dict[str, Any]) -> None:
    played = play(sent, STOP)
    assert (played.final["status"], played.final["output"], lost(played)) == ("completed", [], set())


def test_answer_that_says_it_calls_a_tool_and_has_no_call_fails() -> None:
    played = play(chunk({"content": ""}), chunk(finish="tool_calls"))
    assert (played.final["status"], played.final["output"]) == ("failed", [])
    assert "tool" in played.final["error"]["message"]


@pytest.mark.parametrize(
    ("name", "kind"), [("content", "output_text"), ("reasoning_content", "reasoning_text")]
)
def test_shortcut_for_chunks_with_one_plain_piece_sees_what_the_tables_see(name: str, kind: str) -> None:
    plain: dict[str, Any] = {"id": "1", "model": "tiny", "system_fingerprint": "fp", "usage": None}
    choice = {"index": 0, "delta": {"role": "assistant", name: "A"}, "finish_reason": None, "logprobs": None}
    beside: list[dict[str, Any]] = [
        {"weather": "Rain"},
        {"text": "Rain"},
        {"message": "Rain"},
        {"provider_specific_fields": {"weather": "Rain"}},
    ]
    others: list[dict[str, Any]] = [
        {"usage": {"prompt_tokens": 3}},
        {"citations": ["https://a.example"]},
        {"x_groq": {"usage": {"prompt_tokens": 3}}},
        {"provider_specific_fields": None},
    ]
    for extra in [{}, *beside, *others]:
        for place in ("chunk", "choice"):
            if place == "choice" and ({"text", "message"} & extra.keys()):
                continue  # there it is another name of the delta
            reader = ChatReader("resp_1")
            reader.read(Frame("", orjson.dumps({**plain, "choices": [choice]})))
            in_choice, in_chunk = (extra, {}) if place == "choice" else ({}, extra)
            sent = {**plain, "choices": [{**choice, **in_choice}], **in_chunk}
            (told,) = reader.read(Frame("", orjson.dumps(sent)))
            assert (told["type"], told["delta"]) == (f"response.{kind}.delta", "A")
            assert bool(reader.notices) == (extra in beside)
    reader = ChatReader("resp_1")
    reader.read(Frame("", orjson.dumps({**plain, "choices": [choice]})))
    *_, error = reader.read(
        Frame("", orjson.dumps({**plain, "choices": [{**choice, "error": {"message": "Boom"}}]}))
    )
    assert error["type"] == "error"


# -- property

NAMES = st.text("abcdefgh", min_size=4, max_size=9).map(lambda name: f"zz_{name}")


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, min_size=1, max_size=2) | st.dictionaries(NAMES, inner, min_size=1, max_size=2)


CONTENT = st.recursive(st.just("needle"), nested, max_leaves=4)

PLACES = ["chunk", "choice", "delta", "message", "part", "thought part", "image", "call", "function"]
PLACES += ["reasoning", "vendor", "source", "detail", "other choice", "other entry"]


def with_field(place: str, name: str, value: Any) -> dict[str, Any]:
    """A chunk that has the field in this place, and nothing else that makes output."""
    extra = {name: value}
    match place:
        case "chunk":
            return chunk(**extra)
        case "choice":
            return chunk(choice=extra)
        case "delta":
            return chunk(extra)
        case "message":
            return chunk(choice={"delta": None, "message": extra})
        case "part":
            return chunk({"content": [{"type": "text", "text": "", **extra}]})
        case "thought part":
            return chunk({"content": [{"type": "thinking", "thinking": [], **extra}]})
        case "image":
            return chunk({"images": [{"type": "image_url", **extra}]})
        case "call":
            return chunk({"tool_calls": [{"index": 0, **extra}]})
        case "function":
            return chunk({"tool_calls": [{"index": 0, "function": extra}]})
        case "reasoning":
            return chunk({"reasoning": extra})
        case "vendor":
            return chunk({"provider_specific_fields": extra})
        case "source":
            return chunk({"annotations": [{"type": "note", **extra}]})
        case "detail":
            return chunk({"reasoning_details": [{"type": "reasoning.text", "index": 0, **extra}]})
        case "other entry":
            return {"choices": [*chunk()["choices"], "needle"]}
        case _:
            sent = chunk()
            other = {"index": 1, "delta": {"content": "needle"}}
            return {**sent, "choices": [*sent["choices"], other]}


BESIDE: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "a text": [chunk({"content": "A"})],
    "a call": [chunk(call(0, "c", "look", "{}"))],
    "a thought": [chunk({"reasoning_content": "Hm"})],
}


@given(
    place=st.sampled_from(PLACES),
    name=NAMES,
    value=CONTENT,
    beside=st.sampled_from(list(BESIDE)),
    is_first=st.booleans(),
    is_streamed=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_no_field_with_content_disappears_in_silence(
    place: str, name: str, value: Any, beside: str, is_first: bool, is_streamed: bool
) -> None:
    sent, others = with_field(place, name, value), BESIDE[beside]
    chunks = [sent, *others] if is_first else [*others, sent]
    if is_streamed or others:
        played = play(*chunks, chunk(finish="stop"))
    else:
        choice = sent["choices"][0]
        answer = {**choice, "message": choice.get("delta") or choice.get("message"), "finish_reason": "stop"}
        played = run_answer(
            orjson.dumps({**sent, "choices": [{**answer, "delta": None}, *sent["choices"][1:]]})
        )
    is_shown = "needle" in orjson.dumps(played.final["output"]).decode()
    assert is_shown or any(name in field or field == "choices" for field in lost(played))
    if not played.final["output"]:
        assert played.final["status"] == "failed"
        assert any(field in played.final["error"]["message"] for field in lost(played))
