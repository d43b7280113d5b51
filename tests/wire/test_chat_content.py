"""What servers call thoughts, texts, images, sounds and sources in a chat answer, and what a client gets."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.answers.readers import ChatReader
from gateway.wire.chat.citations import FIELDS as CITATIONS
from gateway.wire.sse import Frame
from tests.core.conftest import Played
from tests.wire.chat_play import call, chunk, run, run_answer, shape, stream, validate

STOP = chunk(finish="stop")
PNG = "iVBORw0KGgo="
DATA_URL = f"data:image/png;base64,{PNG}"


def play(*chunks: dict[str, Any], **request: Any) -> Played:
    played = run(stream(chunks), **request)
    validate(played)
    return played


def output(*chunks: dict[str, Any]) -> list[Any]:
    """What is shown of a stream that ends well and loses nothing."""
    played = play(*chunks)
    assert played.final["status"] == "completed"
    assert not played.machine.notices
    return shape(played.final["output"])


def items(*chunks: dict[str, Any]) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = play(*chunks).final["output"]
    return shown


# -- thoughts


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "Hm."},
        {"reasoning": "Hm."},
        {"reasoning_text": "Hm."},
        {"thinking": "Hm."},
        {"thought": "Hm."},
        {"reasoning": {"content": "Hm."}},
        {"reasoning": {"text": "Hm."}},
        {"reasoning": {"summary": [{"type": "summary_text", "text": "Hm."}]}},
        {"reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "index": 0}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "Hm.", "index": 0}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "Hm."}]},
        {"content": [{"type": "thinking", "thinking": "Hm."}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]},
        {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}]},
        {"content": [{"type": "reasoning", "text": "Hm."}]},
        {"content": {"parts": [{"text": "Hm.", "thought": True}]}},
        {"content": {"type": "thinking", "thinking": "Hm."}},
        {"content": [{"thinking": "Hm."}]},
    ],
    ids=lambda delta: orjson.dumps(delta).decode()[:60],
)
@pytest.mark.parametrize("name", ["delta", "message"])
def test_thoughts_under_any_name_are_a_reasoning_item(name: str, delta: dict[str, Any]) -> None:
    thought = chunk(choice={"delta": None, name: delta})
    assert output(thought, chunk({"content": "A"}), STOP) == [("reasoning", "Hm."), ("message", "A")]


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning": "Hm.", "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
        {"reasoning_content": "Hm.", "thinking_blocks": [{"type": "thinking", "thinking": "Hm."}]},
        {"reasoning_content": "Hm.", "reasoning": "Hm.", "reasoning_details": [{"summary": "Hm."}]},
        {"reasoning_content": "Hm.", "provider_specific_fields": {"reasoning_content": "Hm."}},
    ],
    ids=lambda delta: " and ".join(delta),
)
def test_thoughts_that_are_told_twice_are_said_once(delta: dict[str, Any]) -> None:
    assert output(chunk(delta), chunk({"content": "A"}), STOP) == [("reasoning", "Hm."), ("message", "A")]


def test_two_different_thoughts_in_one_delta_are_both_said() -> None:
    assert output(chunk({"reasoning_content": "One. ", "reasoning": "Two."}), STOP) == [
        ("reasoning", "One. Two.")
    ]


def test_blank_space_between_two_pieces_of_a_thought_is_kept() -> None:
    pieces = [chunk({"reasoning": text}) for text in ("One.", "\n", "Two.")]
    assert output(*pieces, STOP) == [("reasoning", "One.\nTwo.")]


@pytest.mark.parametrize(
    ("delta", "name"),
    [
        ({"reasoning": "Hm.", "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]}, "reasoning"),
        ({"reasoning_content": "Hm."}, "reasoning_content"),
        ({"reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]}, "reasoning_details"),
        ({"content": [{"type": "thinking", "thinking": "Hm."}]}, "content"),
        ({"content": "A"}, None),
    ],
    ids=lambda value: str(value),
)
def test_reader_says_in_which_field_the_thoughts_came(delta: dict[str, Any], name: str | None) -> None:
    reader = ChatReader("resp_1")
    reader.read(Frame("", orjson.dumps(chunk(delta))))
    assert reader.reasoning_field == name


def test_signature_at_the_end_of_a_thought_is_kept_with_it_as_the_backend_had_it() -> None:
    def details(**fields: Any) -> dict[str, Any]:
        return {"reasoning_details": [{"type": "reasoning.text", "format": "v1", "index": 0, **fields}]}

    sent = [
        chunk({"reasoning": "One. ", **details(text="One. ")}),
        chunk({"reasoning": "Two.", **details(text="Two.")}),
        chunk({"reasoning": "", **details(text="", signature="c2ln")}),
        chunk({"content": "A"}),
    ]
    thought, message = items(*sent, STOP)
    assert thought["reasoning_details"] == [
        {"type": "reasoning.text", "format": "v1", "index": 0, "text": "One. Two.", "signature": "c2ln"}
    ]
    assert "reasoning_details" not in message


def test_blocks_of_thought_are_told_apart_by_their_signatures() -> None:
    def block(text: str, signature: str | None) -> dict[str, Any]:
        return {"type": "thinking", "thinking": text, "signature": signature}

    sent = [block("On", None), block("e.", None), block("", "s1"), block("Two.", None), block("", "s2")]
    chunks = [chunk({"reasoning_content": each["thinking"], "thinking_blocks": [each]}) for each in sent]
    (thought,) = items(
        *chunks, chunk({"thinking_blocks": [{"type": "redacted_thinking", "data": "x"}]}), STOP
    )
    assert shape([thought]) == [("reasoning", "One.Two.")]
    assert thought["thinking_blocks"] == [
        {"type": "thinking", "thinking": "One.", "signature": "s1"},
        {"type": "thinking", "thinking": "Two.", "signature": "s2"},
        {"type": "redacted_thinking", "data": "x"},
    ]


def test_thought_that_came_in_words_only_has_nothing_of_a_vendor() -> None:
    (thought,) = items(chunk({"reasoning": "Hm.", "reasoning_details": [{"text": "Hm.", "index": 0}]}), STOP)
    assert set(thought) == {"id", "type", "summary", "content"}


def test_details_that_are_all_there_is_are_kept_for_the_way_back() -> None:
    pieces = [
        chunk({"reasoning_details": [{"type": "reasoning.text", "id": "r-1", "text": t}]}) for t in "AB"
    ]
    (thought,) = items(*pieces, STOP)
    assert thought["reasoning_details"] == [{"type": "reasoning.text", "id": "r-1", "text": "AB"}]


def test_ciphertext_is_a_thought_of_its_own_and_breaks_no_message_off() -> None:
    sealed = {"reasoning_details": [{"type": "reasoning.encrypted", "data": "c2VhbGVk", "index": 0}]}
    chunks = [chunk({"content": "A"}), chunk({"content": "B", **sealed}), chunk({"content": "C"}), STOP]
    message, thought = items(*chunks)
    assert shape([message]) == [("message", "ABC")]
    assert (thought["type"], thought["content"]) == ("reasoning", [])
    assert thought["reasoning_details"] == sealed["reasoning_details"]


def test_ciphertext_that_comes_with_a_call_stands_before_it() -> None:
    sealed = {"reasoning_details": [{"type": "reasoning.encrypted", "data": "c2VhbGVk", "id": "c"}]}
    chunks = [chunk({"content": "A"}), chunk({**call(0, "c", "look", "{}"), **sealed})]
    assert [item["type"] for item in items(*chunks, chunk(finish="tool_calls"))] == [
        "message",
        "reasoning",
        "function_call",
    ]


# -- texts


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {"content": "A"}},
        {"delta": {"content": [{"type": "text", "text": "A"}]}},
        {"delta": {"content": [{"type": "output_text", "text": "A"}]}},
        {"delta": {"content": [{"type": "text", "text": {"value": "A", "annotations": []}}]}},
        {"delta": {"content": ["A"]}},
        {"delta": {"content": {"type": "text", "text": "A"}}},
        {"delta": {"content": {"text": "A"}}},
        {"delta": {"content": {"parts": [{"text": "A"}]}}},
        {"delta": {"content": [{"type": "reference", "reference_ids": [1], "text": "A"}]}},
        {"delta": None, "message": {"role": "assistant", "content": "A"}},
        {"delta": {}, "message": {"content": [{"type": "text", "text": "A"}]}},
        {"text": "A"},
        {"delta": {"content": "A"}, "text": "A"},
        {"delta": {"content": "A", "token_id": 7}, "text": "A", "seed": 1},
        {"delta": {"content": "A"}, "message": {"content": "A"}},
        {"delta": "A"},
        {"message": "A"},
    ],
    ids=lambda choice: orjson.dumps(choice).decode()[:70],
)
def test_a_text_in_any_shape_is_said_once(choice: dict[str, Any]) -> None:
    sent = {"choices": [{"index": 0, **choice}]}
    assert output(sent, STOP) == [("message", "A")]


@pytest.mark.parametrize(
    "sent",
    [
        {"choices": {"index": 0, "delta": {"content": "A"}}},
        {"choices": [{"delta": {"content": "A"}}]},
        {"choices": [{"index": "0", "delta": {"content": "A"}}]},
        {"choices": [{"index": 1, "delta": {"content": "A"}}]},
        {"choices": [None, {"index": 0, "delta": {"content": "A"}}]},
        {"message": {"role": "assistant", "content": "A"}, "done": False},
        {"delta": {"content": "A"}},
    ],
    ids=lambda sent: orjson.dumps(sent).decode()[:60],
)
def test_the_choice_is_found_wherever_it_stands(sent: dict[str, Any]) -> None:
    played = run(stream([sent]))
    assert shape(played.final["output"]) == [("message", "A")]


def test_answer_that_is_cut_into_several_choices_is_one() -> None:
    calls = [{"id": "c", "function": {"name": "look", "arguments": "{}"}}]
    choices: list[dict[str, Any]] = [
        {"message": {"content": "A"}},
        {"message": {"tool_calls": calls}, "finish_reason": "tool_calls"},
    ]
    expected = [("message", "A"), ("function_call", "look", "{}")]
    assert shape(run_answer(orjson.dumps({"choices": choices})).final["output"]) == expected
    streamed = [{"delta": each["message"], "finish_reason": each.get("finish_reason")} for each in choices]
    assert output({"choices": streamed}) == expected


def test_answer_of_ollamas_own_api_is_read() -> None:
    chunks = [
        {"model": "tiny", "message": {"role": "assistant", "content": t}, "done": False} for t in ("A", "B")
    ]
    last = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "length"}
    played = play(*chunks, last)
    assert (played.final["status"], shape(played.final["output"])) == ("incomplete", [("message", "AB")])


def test_parts_keep_their_order() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "R"}]},
        {"type": "text", "text": "T"},
        {"type": "image_url", "image_url": {"url": DATA_URL}},
        {"type": "text", "text": "U"},
        {"type": "refusal", "refusal": "No."},
        {"type": "tool_use", "id": "c", "name": "look", "input": {"a": 1}},
    ]
    assert output(chunk({"content": parts}, "tool_use")) == [
        ("reasoning", "R"),
        ("message", "T"),
        ("image_generation_call",),
        ("message", "U", "No."),
        ("function_call", "look", '{"a":1}'),
    ]


# -- whole messages after, beside and in place of deltas


@pytest.mark.parametrize("content", ["AB", [{"type": "text", "text": "AB"}], " AB "], ids=str)
def test_whole_message_after_its_deltas_is_not_said_twice(content: Any) -> None:
    whole = {"role": "assistant", "content": content, "reasoning_content": "Hm."}
    chunks = [chunk({"reasoning_content": "Hm."}), chunk({"content": "A"}), chunk({"content": "B"})]
    last = chunk(finish="stop", choice={"delta": None, "message": whole})
    assert output(*chunks, last) == [("reasoning", "Hm."), ("message", "AB")]


def test_whole_message_with_more_than_the_deltas_had_brings_the_rest() -> None:
    last = chunk(finish="stop", choice={"message": {"content": "AB!"}})
    assert output(chunk({"content": "A"}), chunk({"content": "B"}), last) == [("message", "AB!")]


def test_whole_message_that_says_something_else_is_told_and_not_said() -> None:
    played = play(chunk({"content": "A"}), chunk(finish="stop", choice={"message": {"content": "Z"}}))
    assert shape(played.final["output"]) == [("message", "A")]
    assert [notice.name for notice in played.machine.notices] == ["message.text"]


def test_all_so_far_beside_each_delta_is_not_said_twice() -> None:
    texts = ["A", "AB", "ABC"]
    chunks = [chunk({"content": t[-1]}, choice={"message": {"content": t}}) for t in texts]
    last = chunk({"content": ""}, "stop", choice={"message": {"content": "ABC"}})
    assert output(*chunks, last) == [("message", "ABC")]


@pytest.mark.parametrize(
    "texts", [["A", "B", "B", "C"], ["A", "AB", "ABB", "ABBC"]], ids=["pieces", "all so far"]
)
def test_message_in_place_of_a_delta_is_a_piece_or_all_so_far(texts: list[str]) -> None:
    chunks = [chunk(choice={"delta": None, "message": {"content": text}}) for text in texts]
    assert output(*chunks, STOP) == [("message", "ABBC")]


def test_calls_of_a_whole_message_that_were_streamed_are_not_made_twice() -> None:
    def whole(*ids: str | None) -> dict[str, Any]:
        functions = [{"name": "look", "arguments": '{"a": 1}'}, {"name": "hear", "arguments": "{}"}]
        return {"tool_calls": [{"id": i, "function": f} for i, f in zip(ids, functions, strict=True)]}

    for ids in (("c1", "c2"), (None, None)):
        streamed = [chunk(call(0, ids[0], "look", '{"a":1}')), chunk(call(1, ids[1], "hear", "{}"))]
        last = chunk(finish="tool_calls", choice={"message": whole(*ids)})
        expected = [("function_call", "look", '{"a":1}'), ("function_call", "hear", "{}")]
        assert output(*streamed, last) == expected
        assert [shape_[:2] for shape_ in output(last)] == [shape_[:2] for shape_ in expected]


def test_call_of_a_whole_message_that_was_not_streamed_is_made() -> None:
    calls = [{"id": f"c{n}", "function": {"name": name, "arguments": "{}"}} for n, name in enumerate("ab")]
    last = chunk(finish="tool_calls", choice={"message": {"tool_calls": calls}})
    assert output(chunk(call(0, "c0", "a", "{}")), last) == [("function_call", n, "{}") for n in "ab"]


# -- refusals, images, sounds


def test_refusal_in_parts_is_a_refusal() -> None:
    (item,) = items(chunk({"refusal": [{"type": "refusal", "refusal": "No."}]}), STOP)
    assert item["content"] == [{"type": "refusal", "refusal": "No."}]


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "", "images": [{"type": "image_url", "image_url": {"url": DATA_URL}, "index": 0}]},
        {"images": [{"type": "image_url", "image_url": DATA_URL}]},
        {"images": [DATA_URL]},
        {"images": [{"b64_json": PNG, "output_format": "png"}]},
        {"image": {"url": DATA_URL}},
        {"content": [{"type": "image_url", "image_url": {"url": DATA_URL}}]},
        {
            "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
            ]
        },
        {"content": [{"type": "image", "image": {"data": PNG, "mime_type": "image/png"}}]},
        {"content": [{"type": "output_image", "image_url": DATA_URL}]},
        {"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}]}},
        {"content": [{"inline_data": {"mime_type": "image/png", "data": PNG}}]},
    ],
    ids=lambda delta: orjson.dumps(delta).decode()[:70],
)
def test_image_in_any_shape_is_an_item_with_its_bytes(delta: dict[str, Any]) -> None:
    played = play(chunk(delta), STOP)
    (item,) = played.final["output"]
    assert not played.machine.notices
    assert {name: item[name] for name in ("type", "status", "result", "output_format")} == {
        "type": "image_generation_call",
        "status": "completed",
        "result": PNG,
        "output_format": "png",
    }


def test_image_that_is_sent_again_is_shown_once() -> None:
    sent = {"images": [{"image_url": {"url": DATA_URL}}]}
    last = chunk(finish="stop", choice={"message": {"content": "A", **sent}})
    assert [item["type"] for item in items(chunk({"content": "A", **sent}), chunk(sent), last)] == [
        "message",
        "image_generation_call",
    ]


def test_image_that_is_only_linked_to_is_a_link_in_the_text() -> None:
    link = {"images": [{"type": "image_url", "image_url": {"url": "https://a.example/1.png"}}]}
    assert output(chunk({"content": "Here: "}), chunk(link), STOP) == [
        ("message", "Here: ![image](https://a.example/1.png)\n")
    ]


def test_speech_is_its_transcript_and_its_sound_in_events_and_on_the_message() -> None:
    sounds = [{"id": "a-1", "transcript": "Hel", "data": "AAA="}, {"transcript": "lo", "data": "AQI="}]
    played = play(*(chunk({"audio": sound}) for sound in sounds), chunk({"audio": {"expires_at": 9}}), STOP)
    (item,) = played.final["output"]
    assert shape([item]) == [("message", "Hello")]
    assert item["audio"] == {"id": "a-1", "transcript": "Hello", "data": "AAABAg==", "expires_at": 9}
    heard = [event for event in played.events if event["type"].startswith("response.audio")]
    assert [event.get("delta") for event in heard] == ["AAA=", "AQI=", None]


@pytest.mark.parametrize("name", ["audio", "input_audio"])
def test_speech_as_a_part_is_the_same(name: str) -> None:
    part = {"type": name, name: {"data": "AAA=", "format": "wav", "transcript": "Hi"}}
    (item,) = items(chunk({"content": [part]}), STOP)
    assert (shape([item]), item["audio"]["data"]) == ([("message", "Hi")], "AAA=")


def test_speech_that_is_told_again_in_the_whole_message_is_not_heard_twice() -> None:
    audio = {"id": "a-1", "transcript": "Hi", "data": "AAA="}
    last = chunk(finish="stop", choice={"message": {"content": None, "audio": audio}})
    (item,) = items(chunk({"audio": audio}), last)
    assert (shape([item]), item["audio"]["data"]) == ([("message", "Hi")], "AAA=")
    (alone,) = run_answer(orjson.dumps({"choices": [last["choices"][0]]})).final["output"]
    assert alone["audio"] == audio


def test_data_of_a_vendor_on_a_message_is_kept_for_the_next_turn() -> None:
    extra = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    (item,) = items(chunk({"content": "A"}), chunk({"content": "", **extra}), STOP)
    assert item["extra_content"] == extra["extra_content"]


# -- sources

A, B = "https://a.example", "https://b.example"


def sources(played: Played) -> list[tuple[str, str, int, int]]:
    """The annotations of the one text: in the final object as in the stream."""
    (part,) = [part for item in played.final["output"] for part in item.get("content", ())]
    streamed = [e["annotation"] for e in played.events if e["type"].endswith("annotation.added")]
    assert streamed == part["annotations"]
    return [(a["url"], a["title"], a["start_index"], a["end_index"]) for a in part["annotations"]]


def test_citation_with_a_place_keeps_it() -> None:
    nested = {
        "type": "url_citation",
        "url_citation": {"url": A, "title": "An A", "start_index": 0, "end_index": 2},
    }
    flat = {"type": "url_citation", "url": B, "title": "A B", "start_index": 2, "end_index": 3}
    played = play(chunk({"content": "Yes", "annotations": [nested]}), chunk({"annotations": [flat]}), STOP)
    assert sources(played) == [(A, "An A", 0, 2), (B, "A B", 2, 3)]


@pytest.mark.parametrize(
    "beside",
    [
        {"citations": [A, B]},
        {
            "citations": [A, B],
            "search_results": [{"title": "An A", "url": A, "date": "2026-01-02"}, {"url": B}],
        },
        {"web_search": [{"link": A, "title": "An A", "refer": "ref_1"}, {"link": B}]},
        {"references": [{"url": A}, {"url": B}]},
        {"search_info": {"search_results": [{"index": 1, "url": A}, {"index": 2, "url": B}]}},
    ],
    ids=lambda beside: " and ".join(beside),
)
@pytest.mark.parametrize("place", ["chunk", "choice", "delta", "message"])
def test_lists_of_sources_are_shown_once_where_the_text_first_names_them(
    place: str, beside: dict[str, Any]
) -> None:
    def with_sources(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        match place:
            case "chunk":
                return chunk(delta, finish, **beside)
            case "choice":
                return chunk(delta, finish, choice=beside)
            case "delta":
                return chunk({**delta, **beside}, finish)
            case _:
                return chunk(delta, finish, choice={"message": beside})

    played = play(
        with_sources({"content": "A [1]"}), with_sources({"content": "."}), with_sources({}, "stop")
    )
    titles = beside != {"citations": [A, B]} and "search_results" in beside
    titled = A if not (titles or "web_search" in beside) else "An A"
    assert sources(played) == [(A, titled, 2, 5), (B, B, 6, 6)]
    assert not played.machine.notices


def test_what_else_is_known_of_a_source_is_kept() -> None:
    found = [{"url": A, "title": "An A", "date": "2026-01-02", "snippet": "High tide."}]
    (item,) = items(chunk({"content": "Hi"}, "stop", search_results=found))
    (annotation,) = item["content"][0]["annotations"]
    assert (annotation["date"], annotation["snippet"]) == ("2026-01-02", "High tide.")


def test_source_without_a_url_is_a_file() -> None:
    context = {"citations": [{"title": "a.pdf", "filepath": "docs/a.pdf", "content": "High.", "url": None}]}
    played = play(chunk({"context": {**context, "intent": "tides"}}), chunk({"content": "So [doc1]."}), STOP)
    ((annotation,),) = [part["annotations"] for part in played.final["output"][0]["content"]]
    assert {name: annotation[name] for name in ("type", "file_id", "filename", "index", "content")} == {
        "type": "file_citation",
        "file_id": "docs/a.pdf",
        "filename": "a.pdf",
        "index": 3,
        "content": "High.",
    }
    assert [notice.name for notice in played.machine.notices] == ["delta.context.intent"]


def test_source_with_a_place_is_shown_once_however_often_it_is_sent() -> None:
    cited = {
        "type": "url_citation",
        "url_citation": {"url": A, "title": "A", "start_index": 0, "end_index": 1},
    }
    chunks = [chunk({"content": "A", "annotations": [cited]}), chunk({"reasoning": "Hm"})]
    last = chunk({"content": "B"}, "stop", choice={"message": {"content": "AB", "annotations": [cited]}})
    parts = [part for item in items(*chunks, last) if item["type"] == "message" for part in item["content"]]
    assert [len(part["annotations"]) for part in parts] == [1, 0]


def test_sources_come_before_the_done_events_that_logprobs_need() -> None:
    entry = {"token": "A", "bytes": [65], "logprob": -0.1, "top_logprobs": []}
    said = chunk({"content": "A"}, choice={"logprobs": {"content": [entry]}})
    played = play(said, chunk(finish="stop", citations=[A]))
    assert sources(played) == [(A, A, 1, 1)]
    assert played.final["output"][0]["content"][0]["logprobs"] == [entry]


def test_sources_that_no_text_has_are_told() -> None:
    played = play(chunk(call(0, "c", "look", "{}")), chunk(finish="tool_calls", citations=[A]))
    assert [notice.name for notice in played.machine.notices] == ["citations"]


@given(
    value=st.recursive(st.none() | st.integers(-9, 9) | st.text(max_size=3), st.lists, max_leaves=4),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_nonsense_in_place_of_sources_images_and_sounds_never_raises(value: Any, data: st.DataObject) -> None:
    names = [*CITATIONS, "images", "audio", "reasoning_details", "thinking_blocks", "extra_content"]
    inner = data.draw(
        st.sampled_from([value, [value], {"url": value}, [{"type": "url_citation", "url": value}]])
    )
    delta = dict.fromkeys(names, inner)
    validate(
        run(
            stream([chunk({"content": "A"}), chunk(delta, **delta, choice={**delta, "message": delta}), STOP])
        )
    )
