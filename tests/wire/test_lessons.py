"""The words by which servers refuse a conversation, and what is done otherwise after each.

Rebuilt from public reports: the words are the servers' own, the conversations are not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import orjson
import pytest

from gateway.wire.answers.readers import ChatReader
from gateway.wire.chat.lessons import CHAT
from gateway.wire.chat.request import ChatOptions
from gateway.wire.chat.speech import ChatSpeech
from gateway.wire.chat.ways import System, ThoughtReplay, Ways
from gateway.wire.conversation.item_lessons import ITEMS
from gateway.wire.conversation.replay import Forms, Ids
from gateway.wire.speech import Speech
from gateway.wire.speech_responses import ResponsesSpeech
from gateway.wire.sse import Frame

Item = dict[str, Any]
TENANT = b"t" * 32


def error(message: str, **fields: Any) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "invalid_request_error", **fields}})


S = TypeVar("S", bound=Speech)


def chat_speech(ways: Ways | None = None) -> ChatSpeech:
    return ChatSpeech(chat=ChatOptions(ways=ways or Ways()))


def item_speech(forms: Forms | None = None) -> ResponsesSpeech:
    return ResponsesSpeech(forms=forms or Forms())


def after(told: S, said: bytes, input: list[Item]) -> S | None:
    """How it is told otherwise, as a run finds it out."""
    request = {"model": "m", "reasoning": {"effort": "low"}}
    sent = told.body(request, input, TENANT)
    for _, taught in told.after_refusal(said, sent):
        if taught.body(request, input, TENANT) != sent:
            return taught
    return None


# -- chat completions

FIRST, LATE = {"role": "system", "content": "Be brief."}, {"role": "developer", "content": "Now write."}
ASKED = {"role": "user", "content": "Weather?"}
THOUGHT = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]}
CALL = {"type": "function_call", "call_id": "c", "name": "sky", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "wet"}
TALK: list[Item] = [FIRST, ASKED, THOUGHT, CALL, OUTPUT, {"role": "user", "content": "And?"}, LATE, ASKED]

RAW = "{\"message\":\"Unexpected role 'user' after role 'tool'\"}"
TURNS = Ways(system=System.FIRST, alternates=True)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (error("System message must be at the beginning."), Ways(system=System.FIRST)),
        (
            error("Jinja Exception: System message must be at the beginning.", code=500),
            Ways(system=System.FIRST),
        ),
        (error("Chat template error: the system role must come first"), Ways(system=System.FIRST)),
        (error("Multiple system messages are not allowed"), Ways(system=System.FIRST)),
        (error("Unexpected role 'system' after role 'user'", code="3230"), Ways(system=System.FIRST)),
        (error("Only user, assistant and tool roles are supported!"), Ways(system=System.FIRST)),
        (b'{"detail":"System role not supported"}', Ways(system=System.USER)),
        (
            error("Unsupported value: 'messages[0].role' does not support 'system' with this model."),
            Ways(system=System.USER),
        ),
        (error("Conversation roles must alternate user/assistant/user/assistant/..."), TURNS),
        (error('messages: roles must alternate between "user" and "assistant"'), TURNS),
        (error("A conversation must alternate between user and assistant roles."), TURNS),
        (error("Unexpected role 'user' after role 'tool'", code="3230"), TURNS),
        (  # a proxy that hands on what its provider said
            error(
                "Provider returned error",
                metadata={"raw": "{\"message\":\"Unexpected role 'user' after role 'tool'\"}"},
            ),
            TURNS,
        ),
        (
            error("The `reasoning_content` in the thinking mode must be passed back to the API."),
            Ways(thoughts=ThoughtReplay.CALLS, reasoning_field="reasoning_content"),
        ),
        (
            b'{"code":20015,"message":"thinking is enabled but reasoning_content is missing in assistant '
            b'tool call message at index 32","data":null}',
            Ways(thoughts=ThoughtReplay.CALLS, reasoning_field="reasoning_content"),
        ),
        (
            error("Missing `reasoning_content` field in the assistant message at message index 2"),
            Ways(thoughts=ThoughtReplay.CALLS, reasoning_field="reasoning_content"),
        ),
        (
            orjson.dumps(
                [
                    {
                        "error": {
                            "message": "Function call is missing a thought_signature in functionCall parts."
                        }
                    }
                ]
            ),
            Ways(needs_signatures=True),
        ),
        (
            error("function call `sky` in the 2. content block is missing a `thought_signature`."),
            Ways(needs_signatures=True),
        ),
        (
            error("Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9.", code="3280"),
            Ways(has_short_ids=True),
        ),
        (
            error("messages.1.content.0.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"),
            Ways(has_short_ids=True),
        ),
        (error("Invalid 'messages[1].tool_calls[0].id': string too long."), Ways(has_short_ids=True)),
        (error("messages: text content blocks must be non-empty"), Ways(refuses_empty=True)),
        (
            error("the message at position 3 with role 'assistant' must not be empty"),
            Ways(refuses_empty=True),
        ),
        (
            error("bedrock error: The content field in the Message object at messages.3 is empty."),
            Ways(refuses_empty=True),
        ),
    ],
)
def test_chat_backends_say_how_they_want_a_conversation(said: bytes, expected: Ways) -> None:
    taught = after(chat_speech(), said, TALK)
    assert taught is not None
    assert taught.chat.ways == expected
    assert not taught.is_for_now


KNOWN = Ways(thoughts=ThoughtReplay.ALL, reasoning_field="reasoning_content")
NAMED: list[Item] = [{**ASKED, "name": "ann"}, THOUGHT, {**CALL, "extra_content": {"google": {}}}, OUTPUT]


@pytest.mark.parametrize(
    ("said", "thoughts", "refused"),
    [
        (error("'messages.1' : property 'reasoning_content' is unsupported"), ThoughtReplay.NEVER, set()),
        (
            error(
                "property 'messages.1.assistant.reasoning_content' is unsupported", code="wrong_api_format"
            ),
            ThoughtReplay.NEVER,
            set(),
        ),
        (
            orjson.dumps(
                {
                    "detail": [
                        {
                            "type": "extra_forbidden",
                            "loc": ["body", "messages", 1, "assistant", "reasoning_content"],
                            "msg": "Extra inputs are not permitted",
                        }
                    ]
                }
            ),
            ThoughtReplay.NEVER,
            set(),
        ),
        (error("Unknown parameter: 'messages[0].name'."), ThoughtReplay.ALL, {"name"}),
        (
            error('Invalid JSON payload received. Unknown name "extra_content" at messages'),
            ThoughtReplay.ALL,
            {"extra_content"},
        ),
        (error("unrecognized field `name`, additional properties"), ThoughtReplay.ALL, {"name"}),
    ],
)
def test_chat_backends_say_which_fields_they_do_not_take(
    said: bytes, thoughts: ThoughtReplay, refused: set[str]
) -> None:
    taught = after(chat_speech(KNOWN), said, NAMED)
    assert taught is not None
    assert (taught.chat.ways.thoughts, set(taught.chat.ways.refused)) == (thoughts, refused)


def test_a_signature_of_another_route_is_taken_for_none_in_this_conversation_only() -> None:
    taught = after(chat_speech(), error("Corrupted thought signature."), NAMED)
    assert taught is not None
    assert taught.is_for_now
    body = orjson.loads(taught.body({}, NAMED, TENANT))
    (call,) = body["messages"][1]["tool_calls"]
    assert call["extra_content"]["google"]["thought_signature"] == "skip_thought_signature_validator"


def test_one_refusal_after_the_other_is_understood() -> None:
    told = after(chat_speech(), error("System message must be at the beginning."), TALK)
    assert told is not None
    told = after(told, error("System role not supported"), TALK)
    assert told is not None
    assert told.chat.ways.system is System.USER


@pytest.mark.parametrize("system", [System.IN_PLACE, System.FIRST])
def test_what_the_settings_say_of_system_messages_stands(system: System) -> None:
    assert (
        after(chat_speech(Ways(system=system)), error("System message must be at the beginning."), TALK)
        is None
    )


def test_what_the_settings_say_of_thoughts_stands() -> None:
    ways = Ways(thoughts=ThoughtReplay.NEVER)
    assert after(chat_speech(ways), error("The `reasoning_content` must be passed back"), TALK) is None


def test_a_developer_role_that_is_not_known_after_all_is_not_used() -> None:
    taught = after(
        chat_speech(Ways(has_developer_role=True)),
        error("unknown variant `developer`, expected one of `user`"),
        TALK,
    )
    assert taught is not None
    assert not taught.chat.ways.has_developer_role


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"<html>Bad gateway</html>",
        error("The model `x` does not exist"),
        error("This model's maximum context length is 4096 tokens."),
        error("Invalid image"),
        error("Rate limit reached"),
        orjson.dumps({"a": 1}),
        b"[" * 500 + b"]" * 500,
    ],
)
def test_what_has_nothing_to_do_with_the_form_teaches_nothing(said: bytes) -> None:
    assert after(chat_speech(), said, TALK) is None
    assert after(item_speech(Forms()), said, ITEMS_SENT) is None


# -- the Responses API

SEALED = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x", "status": "completed"}
SHELL = {"type": "shell_call", "id": "sh_1", "call_id": "s", "action": {"commands": ["date"]}}
SHELL_OUTPUT = {"type": "shell_call_output", "call_id": "s", "output": []}
SEARCH = {"type": "web_search_call", "id": "ws_1", "action": {"query": "tides"}}
ANSWER = {"type": "message", "id": "msg_1", "role": "assistant", "content": [], "phase": "final"}
ITEMS_SENT: list[Item] = [ASKED, SEALED, SHELL, SHELL_OUTPUT, SEARCH, ANSWER, LATE]

THINKS = frozenset({"reasoning"})
SHELLS = frozenset({"shell_call", "shell_call_output"})
VLLM = (
    "2 validation errors:\n  {'type': 'string_type', 'loc': ('body', 'input', 'str'), 'msg': 'No'}\n"
    "  {'type': 'missing', 'loc': ('body', 'input', 'list[union[EasyInputMessageParam,Message]]', %d, "
    "'Message', 'role'), 'msg': 'Field required'}"
)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # a type, by its name
        (error('input[2]: unknown input item type: "shell_call"'), Forms(refused=SHELLS)),
        (
            error("Failed to deserialize: input: unknown variant `shell_call`, expected one of `message`"),
            Forms(refused=SHELLS),
        ),
        (error("Items of type reasoning are not supported in input"), Forms(refused=THINKS)),
        (
            error("Invalid value: 'web_search_call'. Supported values are: 'reasoning'.", param="input[4]"),
            Forms(refused=frozenset({"web_search_call"})),
        ),
        # a type, by its place
        (error("Invalid value", param="input[1]"), Forms(refused=THINKS)),
        (error(VLLM % 4, param="body.input"), Forms(refused=frozenset({"web_search_call"}))),
        (
            orjson.dumps(
                {
                    "detail": [
                        {"type": "missing", "loc": ["body", "input", "list[union[A,B]]", 1, "A", "role"]}
                    ]
                }
            ),
            Forms(refused=THINKS),
        ),
        (orjson.dumps({"error": [{"code": "invalid_union", "path": ["input", 1]}]}), Forms(refused=THINKS)),
        # a field
        (
            error("Unknown parameter: 'input[1].status'.", param="input[1].status", code="unknown_parameter"),
            Forms(without=frozenset({("reasoning", "status")})),
        ),
        (
            orjson.dumps({"detail": [{"type": "extra_forbidden", "loc": ["body", "input", 5, "phase"]}]}),
            Forms(without=frozenset({("message", "phase")})),
        ),
        # anything that not everybody knows; thoughts are the last to go
        (
            error("Invalid type for 'input'.", param="input", code="invalid_union"),
            Forms(refused=SHELLS | {"web_search_call"}),
        ),
        # shapes
        (error("Cannot determine type of 'item'"), Forms(is_whole=True)),
        (error("The request failed because it is missing input.status parameter"), Forms(is_whole=True)),
        (
            error("data did not match any variant of untagged enum ResponsesInput at line 1"),
            Forms(is_whole=True),
        ),
        # order
        (error("System message must be at the beginning."), Forms(system=System.FIRST)),
        # ids
        (
            error("Item with id 'rs_1' not found. Items are not persisted when `store` is set to false."),
            Forms(ids=Ids.NONE),
        ),
        (
            error("Item 'fc_1' of type 'function_call' was provided without its required 'reasoning' item"),
            Forms(ids=Ids.NONE),
        ),
        (error("Invalid 'input[1].id': 'x'. Expected an ID that begins with 'rs'."), Forms(ids=Ids.NONE)),
        (
            error(
                "The encrypted content for item rs_1 could not be verified. Reason: Encrypted content "
                "item_id did not match the target item id.",
                code="invalid_encrypted_content",
            ),
            Forms(ids=Ids.NONE),
        ),
        # sealed thoughts
        (error("Encrypted content is not supported with this model."), Forms(asks_ciphers=False)),
        (error("Invalid value in include: 'reasoning.encrypted_content'"), Forms(asks_ciphers=False)),
        (
            orjson.dumps({"detail": "Unexpected fields in the request: {'include'}"}),
            Forms(asks_ciphers=False),
        ),
    ],
)
def test_responses_backends_say_what_they_do_not_take(said: bytes, expected: Forms) -> None:
    taught = after(item_speech(Forms()), said, ITEMS_SENT)
    assert taught is not None
    assert taught.forms == expected
    assert not taught.is_for_now


@pytest.mark.parametrize(
    "said",
    [
        error("The encrypted content gAAA…Q== could not be verified.", code="invalid_encrypted_content"),
        error("Could not decrypt the provided encrypted_content."),
        error("Could not decode the compaction blob. Ensure it is unmodified."),
        error("reasoning `encrypted_content` was not issued to this caller"),
    ],
)
def test_seals_of_somebody_else_are_left_out_of_this_conversation_only(said: bytes) -> None:
    taught = after(item_speech(Forms()), said, ITEMS_SENT)
    assert taught is not None
    assert taught.forms == Forms(takes_ciphers=False)
    assert taught.is_for_now


def test_a_seal_that_is_not_taken_at_all_is_left_out_for_good() -> None:
    taught = after(
        item_speech(Forms(asks_ciphers=False)), error("Encrypted content is not supported."), ITEMS_SENT
    )
    assert taught is not None
    assert taught.forms == Forms(asks_ciphers=False, takes_ciphers=False)
    assert not taught.is_for_now


def test_thoughts_go_last_where_nothing_is_named() -> None:
    told = item_speech(Forms())
    refused = []
    for _ in range(2):
        told = after(told, error("Invalid input", code="invalid_union"), ITEMS_SENT) or told
        refused.append(told.forms.refused)
    assert refused == [SHELLS | {"web_search_call"}, SHELLS | THINKS | {"web_search_call"}]
    assert after(told, error("Invalid input", code="invalid_union"), ITEMS_SENT) is None


def test_what_a_refusal_says_there_would_be_is_not_blamed() -> None:
    said = error(
        "input: unknown variant `shell_call`, expected one of `message`, `reasoning`, `web_search_call`"
    )
    taught = after(item_speech(Forms()), said, ITEMS_SENT)
    assert taught is not None
    assert taught.forms.refused == SHELLS


def test_an_id_that_must_be_there_goes_back() -> None:
    said = error("Missing required parameter: 'input[1].id'.", param="input[1].id")
    names = [name for name, _ in item_speech(Forms()).after_refusal(said, b'{"input":[]}')]
    assert names[0] == "ids_missing"


# -- what is remembered


def test_every_row_says_who_refuses_so() -> None:
    for told in [(row.name, row.source) for row in CHAT], [(row.name, row.source) for row in ITEMS]:
        assert all(source for _, source in told)
        assert len(dict(told)) == len(told)


def test_lessons_are_kept_by_model() -> None:
    base = chat_speech()
    taught = replace(base, chat=ChatOptions(ways=TURNS))
    base = base.remembering("strict", taught)
    assert base.to("strict").chat.ways == TURNS
    assert base.to("other").chat.ways == base.to(None).chat.ways == Ways()
    base = base.remembering(None, taught)
    assert base.to(None).chat.ways == TURNS


def test_no_more_models_are_remembered_than_a_backend_can_have() -> None:
    base = chat_speech()
    taught = replace(base, chat=ChatOptions(ways=TURNS))
    for number in range(300):
        base = base.remembering(f"m{number}", taught)
    assert len(base.learned) == 256
    assert "m299" in base.learned


def test_what_is_true_of_one_conversation_is_not_remembered() -> None:
    base = item_speech(Forms())
    passing = replace(base, forms=Forms(takes_ciphers=False), is_for_now=True)
    assert base.remembering("m", passing) is base


def test_an_answer_shows_under_which_name_thoughts_come() -> None:
    reader = ChatReader("resp_1")
    assert chat_speech().after_answer(reader, []).chat.ways.reasoning_field is None
    thought = b'{"choices": [{"index": 0, "delta": {"reasoning": "Hm."}}]}'
    reader.read(Frame("", thought))
    assert chat_speech().after_answer(reader, []).chat.ways == Ways(reasoning_field="reasoning")
    fixed = Ways(reasoning_field="reasoning_content", thoughts=ThoughtReplay.ALL)
    assert chat_speech(fixed).after_answer(reader, []).chat.ways == fixed


# -- asking for sealed thoughts


def included(told: Speech, **request: Any) -> Any:
    return orjson.loads(told.body(request, [ASKED], TENANT)).get("include")


SEAL = "reasoning.encrypted_content"


def test_who_asks_for_thinking_is_given_sealed_thoughts_to_come_back_with() -> None:
    told = item_speech(Forms())
    assert included(told) is None
    assert included(told, reasoning={"effort": "low"}) == [SEAL]
    assert included(told, reasoning={}, include=["a"]) == ["a", SEAL]
    assert included(told, reasoning={}, include=[SEAL]) == [SEAL]


def test_thoughts_that_came_empty_are_asked_for_sealed() -> None:
    told = item_speech(Forms())
    reader = ChatReader("resp_1")
    assert (
        included(told.after_answer(reader, [{"type": "reasoning", "summary": [], "content": ["x"]}])) is None
    )
    assert included(told.after_answer(reader, [{"type": "reasoning", "summary": []}])) == [SEAL]


def test_a_backend_that_does_not_know_the_word_is_not_asked() -> None:
    told = item_speech(Forms(asks_ciphers=False))
    assert included(told, reasoning={}) is None
    assert included(told, include=[SEAL]) is None
    assert included(told, include=[SEAL, "a"]) == ["a"]
    assert told.after_answer(ChatReader("resp_1"), [{"type": "reasoning"}]).forms.asks_ciphers is False
