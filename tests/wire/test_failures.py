"""What a backend's errors become: recorded bodies, and the shapes, names and words of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.failures import (
    MESSAGE_CHARS_MAX,
    ToldFailure,
    error_in,
    failure,
    of_event,
    of_failed,
    of_status,
)
from gateway.wire.failures.causes import CODES

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"


def recorded() -> list[Any]:
    found = []
    for path in sorted(TRANSCRIPTS.glob("*/*.txt")):
        head, _, body = path.read_bytes().partition(b"\n\n< ")[2].partition(b"\n\n")
        if (status := int(head[:3])) >= 400:
            found.append(pytest.param(status, body, id=f"{path.parent.name}/{path.stem}"))
    assert len(found) > 30, "the transcripts are gone"
    return found


@pytest.mark.parametrize(("status", "body"), recorded())
def test_recorded_error_keeps_its_message_and_gets_a_code_of_the_api(status: int, body: bytes) -> None:
    error = of_status(status, body).failure
    expected = "server_error" if status in (405, 500, 501) else "invalid_prompt"
    if b"The model `" in body:
        expected = "model_not_found"
    elif b"context size" in body or b"context length" in body:
        expected = "context_length_exceeded"
    assert error["code"] == expected
    assert 0 < len(error["message"]) <= MESSAGE_CHARS_MAX
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        assert error["message"].startswith(f"The backend answered with status {status}")
        return
    said = parsed.get("error", parsed)
    said = said if isinstance(said, str) else said.get("message") or said.get("detail")
    if isinstance(said, list):  # FastAPI's list of problems
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in said)
    assert error["message"] == said.split("\n\n  File ")[0]


def test_stack_trace_of_a_backend_is_not_shown() -> None:
    body = (TRANSCRIPTS / "llamacpp-python" / "chat-json-schema.txt").read_bytes().rpartition(b"\n\n")[2]
    assert b'File \\"' in body
    assert "File" not in of_status(500, body).failure["message"]


def told(status: int, body: Any) -> ToldFailure:
    return of_status(status, body if isinstance(body, bytes) else orjson.dumps(body))


# -- where the words stand

NESTED = {"error": {"error": {"message": "Deep down"}}}
SHAPES = {
    "OpenAI": {"error": {"message": "No", "type": "invalid_request_error", "param": None, "code": None}},
    "vLLM, SGLang": {"object": "error", "message": "No", "type": "BadRequestError", "code": 400},
    "Gemini's list": [{"error": {"code": 400, "message": "No", "status": "INVALID_ARGUMENT"}}],
    "Anthropic": {"type": "error", "error": {"type": "invalid_request_error", "message": "No"}},
    "TGI": {"error": "No", "error_type": "validation"},
    "Ollama": {"error": "No"},
    "FastAPI": {"detail": "No"},
    "a gateway around it": {"detail": {"error": {"message": "No"}}},
    "JSON in a string": {"detail": '{"error": {"message": "No"}}'},
    "several": {"errors": [{"message": "No"}, {"message": "Nor this"}]},
    "several in words": {"errors": ["No"]},
    "Zhipu": {"code": 1210, "msg": "No"},
    "Baidu": {"error_code": 17, "error_msg": "No"},
    "MiniMax": {"base_resp": {"status_code": 1013, "status_msg": "No"}},
    "Bedrock": {"__type": "ValidationException", "message": "No"},
    "Bedrock, capital": {"Message": "No"},
    "Express": {"error": "Bad Request", "message": "No", "statusCode": 400},
    "NestJS": {"statusCode": 400, "message": ["No"], "error": "Bad Request"},
    "RFC 9457": {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "No"},
    "a null message": {"error": {"message": None, "detail": "No"}},
    "a message that is an object": {"message": {"error": "No"}},
    "Azure": {"error": {"code": "BadRequest", "message": "No", "innererror": {"code": "Odd"}}},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_words_are_found_wherever_a_server_puts_them(shape: str) -> None:
    body = SHAPES[shape]
    assert told(400, body).failure == {"code": "invalid_prompt", "message": "No"}
    assert of_event({"type": "error", "error": body}).failure["message"] == "No"
    found = error_in(body)
    assert found is not None, "the same as an answer with status 200, or as a chunk"
    assert of_event({"error": found}).failure["message"] == "No"


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (429, {"error": {"message": "Slow down"}}, "rate_limit_exceeded", "Slow down"),
        (429, {"error": {"message": "Pay", "code": "insufficient_quota"}}, "insufficient_quota", "Pay"),
        (429, {"error": {"message": "Pay", "type": "insufficient_quota"}}, "insufficient_quota", "Pay"),
        (400, {"error": {"message": "No", "code": "image_too_large"}}, "image_too_large", "No"),
        (400, {"error": {"message": "No", "code": "made_up"}}, "invalid_prompt", "No"),
        (401, {"error": {"message": "Who are you?"}}, "invalid_api_key", "Who are you?"),
        (402, {"error": {"message": "Add funds"}}, "insufficient_quota", "Add funds"),
        (403, {"error": {"message": "Not you"}}, "permission_denied", "Not you"),
        (
            422,
            {"detail": [{"loc": ["body", "messages", 0], "msg": "field required", "type": "missing"}]},
            "invalid_prompt",
            "body.messages.0: field required",
        ),
        (
            422,
            {"detail": [{"loc": ["body"]}]},
            "invalid_prompt",
            'The backend answered with status 422: {"detail":[{"loc":["body"]}]}',
        ),
        (
            503,
            {"error": {"message": ""}},
            "server_error",
            'The backend answered with status 503: {"error":{"message":""}}',
        ),
        (
            429,
            {
                "error": {
                    "message": "Provider returned error",
                    "code": 429,
                    "metadata": {
                        "raw": "m-1 is rate-limited upstream. Please retry shortly.",
                        "provider_name": "P",
                    },
                }
            },
            "rate_limit_exceeded",
            "Provider returned error: m-1 is rate-limited upstream. Please retry shortly.",
        ),
        (
            400,
            {
                "error": {
                    "message": "Provider returned error",
                    "metadata": {"raw": orjson.dumps(NESTED).decode()},
                }
            },
            "invalid_prompt",
            "Provider returned error: Deep down",
        ),
        (
            500,
            b"Internal Server Error",
            "server_error",
            "The backend answered with status 500: Internal Server Error",
        ),
        (
            502,
            b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body></html>",
            "server_error",
            "The backend answered with status 502: 502 Bad Gateway",
        ),
        (
            520,
            b"<!DOCTYPE html><head>\n<title>models.example.net | 520: Web server is returning an "
            b"&quot;unknown&quot; error</title>",
            "server_error",
            'The backend answered with status 520: 520: Web server is returning an "unknown" error',
        ),
        (
            403,
            b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Not yours</Message></Error>",
            "permission_denied",
            "The backend answered with status 403: Not yours",
        ),
        (524, b"error code: 524", "server_error", "The backend answered with status 524: error code: 524"),
        (502, b"<html><body>Bad</body></html>", "server_error", "The backend answered with status 502."),
        (500, b"", "server_error", "The backend answered with status 500."),
        (500, b"\x00\x01", "server_error", "The backend answered with status 500."),
        (500, b"null", "server_error", "The backend answered with status 500: null"),
        (500, b"two\nlines", "server_error", "The backend answered with status 500: two lines"),
        (413, b"", "invalid_prompt", "The backend answered with status 413."),
    ],
    ids=repr,
)
def test_error_answer(status: int, body: Any, code: str, message: str) -> None:
    assert told(status, body).failure == {"code": code, "message": message}


# -- what the names and the words mean

TOO_LONG = {
    "OpenAI": "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "OpenAI, chat": "This model's maximum context length is 8192 tokens. However, you requested 9000.",
    "vLLM": "You passed 5000 input tokens, however the model's context length is only 4096 tokens.",
    "vLLM's engine": "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
    "vLLM, max_tokens": "max_tokens=9000 cannot be greater than max_model_len=8192.",
    "SGLang": "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
    "SGLang, 2": "Requested token count exceeds the model's maximum context length of 4096 tokens.",
    "llama.cpp": "request (9412 tokens) exceeds the available context size (8192 tokens), try increasing it",
    "llama.cpp, batch": "input is too large to process. increase the physical batch size",
    "llama-cpp-python": "Requested tokens (700) exceed context window of 512",
    "Ollama": "prompt too long; exceeded max context length by 40 tokens",
    "Ollama, 2": "the input length exceeds the context length",
    "LM Studio": "Trying to keep the first 9000 tokens when context overflows.",
    "LM Studio, 2": "The number of tokens to keep from the initial prompt is greater than the context length",
    "TGI": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 and 100",
    "TGI, 2": "Input validation error: `inputs` must have less than 1024 tokens. Given: 1100",
    "Gemini": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "Anthropic": "prompt is too long: 205351 tokens > 200000 maximum",
    "Anthropic, 2": "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
    "Bedrock": "Input is too long for requested model.",
    "Mistral": "Prompt contains 300000 tokens, too large for model with 131072 maximum context length",
    "Groq": "Please reduce the length of the messages or completion.",
    "Cerebras": "Current length is 9000 while limit is 8192",
    "xAI": "This model's maximum prompt length is 131072 but the request contains 200000 tokens.",
    "Moonshot": "Invalid request: Your request exceeded model token limit: 8192",
    "MiniMax": "invalid params, context window exceeds limit",
    "DashScope": "Range of input length should be [1, 30720]",
    "TabbyAPI": "Prompt length 9000 is greater than max_seq_len 8192",
    "TensorRT-LLM": "Prompt length plus max_tokens exceeds the max_seq_length of 2048",
    "Together": "The input exceeds the maximum allowed input length of 8192 tokens.",
    "LMDeploy": "the input exceeds session_len 4096",
    "GitHub": "prompt token count of 145000 exceeds the limit of 128000",
    "transformers": "Token indices sequence length is longer than the specified maximum sequence length",
    "watsonx": "the number of input tokens 9000 cannot exceed the total tokens limit 8192 for this model",
    "Cohere": "too many tokens: size limit exceeded by 90 tokens",
    "Zhipu": "Prompt 超过模型的最大长度限制",
}


@pytest.mark.parametrize("server", TOO_LONG)
@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_too_long_for_the_context_is_one_code_in_whatever_words(server: str, status: int) -> None:
    said = told(
        status, {"error": {"message": TOO_LONG[server], "type": "invalid_request_error", "code": None}}
    )
    assert said.failure == {"code": "context_length_exceeded", "message": TOO_LONG[server]}
    in_a_stream = of_event({"type": "error", "error": {"code": "server_error", "message": TOO_LONG[server]}})
    assert in_a_stream.failure == said.failure
    assert in_a_stream.status == 400


NAMED: list[tuple[str, Any, int | None]] = [
    ("context_length_exceeded", {"code": "context_length_exceeded", "message": "x"}, 400),
    ("context_length_exceeded", {"type": "exceed_context_size_error", "n_ctx": 512, "message": "x"}, 400),
    ("context_length_exceeded", {"code": "model_context_window_exceeded", "message": "x"}, 400),
    (
        "insufficient_quota",
        {"type": "insufficient_quota", "code": "credit_balance_exhausted", "message": "x"},
        429,
    ),
    ("insufficient_quota", {"type": "exceeded_current_quota_error", "message": "x"}, 429),
    ("insufficient_quota", {"message": "Your credit balance is too low to access the API."}, 429),
    ("insufficient_quota", {"message": "Insufficient Balance", "type": "unknown_error"}, 429),
    ("rate_limit_exceeded", {"code": "too_many_requests", "type": "too_many_requests", "message": "x"}, 429),
    ("rate_limit_exceeded", {"type": "tokens", "code": "rate_limit_exceeded", "message": "x"}, 429),
    (
        "rate_limit_exceeded",
        {"status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota"},
        429,
    ),
    (
        "rate_limit_exceeded",
        {"__type": "ThrottlingException", "message": "Too many tokens, please wait"},
        429,
    ),
    ("rate_limit_exceeded", {"code": "Throttling.RateQuota", "message": "x"}, 429),
    ("rate_limit_exceeded", {"code": "429", "type": "limitation", "message": "x"}, 429),
    ("rate_limit_exceeded", {"message": "litellm.RateLimitError: x. Rate limit reached"}, 429),
    ("server_is_overloaded", {"code": "server_is_overloaded", "type": "service_unavailable_error"}, 503),
    ("server_is_overloaded", {"type": "overloaded_error", "message": "Overloaded"}, 503),
    ("server_is_overloaded", {"status": "UNAVAILABLE", "message": "x"}, 503),
    ("server_is_overloaded", {"code": "slow_down", "message": "x"}, 503),
    ("server_is_overloaded", {"message": "no healthy upstream"}, 503),
    ("server_is_overloaded", {"message": "Loading model", "type": "unavailable_error"}, 503),
    ("server_is_overloaded", {"code": 529, "message": "x"}, 529),
    ("server_error", {"code": 503, "message": "x"}, 503),
    ("server_error", {"code": 502, "message": "Worker local total request limit reached (33/32)"}, 502),
    ("server_error", {"type": "timeout_error", "message": "x"}, 504),
    ("server_error", {"code": "server_error", "message": "Sorry. You can retry your request."}, 500),
    ("server_error", {"code": "server_error", "message": "Sorry."}, None),
    ("server_error", {"type": "InternalServerError", "code": 500, "message": "x"}, 500),
    ("content_filter", {"code": "content_filter", "message": "x"}, 400),
    ("content_filter", {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}, 400),
    ("content_filter", {"message": "Rejected as a result of our safety system."}, 400),
    ("invalid_api_key", {"code": "invalid_api_key", "message": "x"}, 401),
    ("invalid_api_key", {"type": "authentication_error", "message": "invalid x-api-key"}, 401),
    (
        "invalid_api_key",
        {
            "code": 400,
            "status": "INVALID_ARGUMENT",
            "message": "x",
            "details": [{"reason": "API_KEY_INVALID"}],
        },
        400,
    ),
    ("model_not_found", {"code": "model_not_found", "message": "x"}, 404),
    ("model_not_found", {"message": 'model "tiny9" not found, try pulling it first'}, 404),
    ("model_not_found", {"message": "The model `tiny9` does not exist.", "type": "NotFoundError"}, 404),
    ("invalid_prompt", {"code": "invalid_prompt", "message": "Invalid prompt: flagged"}, None),
]


@pytest.mark.parametrize(("code", "error", "status"), NAMED, ids=str)
def test_names_and_words_give_a_code_and_the_status_that_they_would_have(
    code: str, error: dict[str, Any], status: int | None
) -> None:
    for event in (
        {"type": "error", "error": error},
        {"type": "error", **error},
        {"error": [{"error": error}]},
    ):
        if event.get("type") == "error" and "type" in error and "error" not in event:
            continue
        found = of_event(event)
        assert (found.failure["code"], found.status) == (code, status)
    assert (
        of_failed({"type": "response.failed", "response": {"error": error, "output": []}}).failure["code"]
        == code
    )


def test_a_status_of_its_own_is_corrected_only_where_it_says_no_more_than_that_something_failed() -> None:
    busy = {"error": {"type": "overloaded_error", "message": "x"}}
    assert (told(500, busy).status, told(400, busy).status, told(429, busy).status) == (503, 400, 429)
    assert told(503, {"error": {"code": "context_length_exceeded", "message": "x"}}).status == 400


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        ({"message": "Rate limit reached for m-1 on tokens per min (TPM). Please try again in 0.2s."}, 0.2),
        ({"message": "Please try again in 20ms."}, 0.02),
        ({"message": "Please try again in 1m30.5s. Visit us."}, 90.5),
        ({"message": "Please try again in 6h0m0s"}, 21_600),
        ({"message": "Please retry after 10 seconds."}, 10),
        ({"message": "Please retry in 20.1s.", "status": "RESOURCE_EXHAUSTED"}, 20.1),
        ({"message": "No deployments available, Try again in 5 seconds. Passed model=x"}, 5),
        ({"message": "Wait 2 minutes, then go on."}, 120),
        ({"message": "x", "retry_after": 7}, 7),
        ({"message": "x", "retry_after_ms": 250}, 0.25),
        ({"message": "x", "retryAfter": "3"}, 3),
        ({"message": "x", "details": [{"@type": "RetryInfo", "retryDelay": "27s"}]}, 27),
        ({"message": "x", "metadata": {"headers": {"Retry-After": "4"}}}, 4),
        ({"message": "Please try again later. Limit 30000, used 29000."}, None),
        ({"message": "x", "retry_after": None}, None),
        ({"message": "x", "retry_after": "soon"}, None),
        ({"message": "x", "retry_after": -1}, None),
        ({"message": "x", "retry_after": True}, None),
    ],
    ids=str,
)
def test_how_long_it_asks_to_be_left_alone(error: dict[str, Any], seconds: float | None) -> None:
    asked_s = of_event({"type": "error", "error": error}).asked_s
    assert asked_s == (None if seconds is None else pytest.approx(seconds))
    assert told(429, {"error": error}).asked_s == asked_s


@pytest.mark.parametrize(
    ("message", "is_last_word"),
    [
        ("Request too large for m-1 on tokens per min (TPM): Limit 30000, Requested 40000.", True),
        ("Rate limit reached. Limit 30000, Used 29000, Requested 4000.", False),
        ("Rate limit reached: the request is too long. Please try again in 2s.", False),
    ],
)
def test_a_limit_that_the_request_meets_at_any_time_is_told_apart(message: str, is_last_word: bool) -> None:
    assert told(429, {"error": {"message": message}}).is_last_word is is_last_word
    event = {"type": "error", "error": {"code": "rate_limit_exceeded", "message": message}}
    assert of_event(event).is_last_word is is_last_word


# -- errors in streams


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error"},
        {"type": "error", "error": {}},
        {"type": "error", "error": ""},
        {"type": "error", "error": None, "code": None, "message": None},
        {"type": "error", "message": ""},
        {"type": "error", "error": {"type": "error", "message": " "}},
    ],
    ids=str,
)
def test_an_error_without_a_word_is_known_as_one(event: dict[str, Any]) -> None:
    found = of_event(event)
    assert found.is_mute
    assert found.failure == {"code": "server_error", "message": "The backend reported an error."}
    assert not of_event({"type": "error", "code": "rate_limit_exceeded"}).is_mute
    assert not of_event({"type": "error", "code": 503}).is_mute


@pytest.mark.parametrize(
    "answer",
    [
        {"id": "c", "choices": [{"index": 0, "delta": {"content": "x"}}], "error": None},
        {"choices": [], "usage": {"total_tokens": 3}},
        {"object": "chat.completion.chunk", "choices": []},
        {"base_resp": {"status_code": 0, "status_msg": ""}, "choices": None},
        {"message": {"role": "assistant", "content": "x"}, "done": False},
        {"type": "ping"},
        {"type": "keepalive", "message": "still here"},
        {},
        [],
        [1],
        None,
        "x",
    ],
    ids=str,
)
def test_what_is_no_error_is_not_taken_for_one(answer: Any) -> None:
    assert error_in(answer) is None


def test_an_error_in_a_choice_is_found() -> None:
    choice = {"index": 0, "finish_reason": "error", "error": {"code": 502, "message": "Gone"}}
    assert error_in({"object": "chat.completion.chunk", "choices": [choice]}) == choice


def test_long_message_is_cut() -> None:
    long = "x" * 100_000
    assert len(of_event({"message": long}).failure["message"]) == MESSAGE_CHARS_MAX
    assert len(told(400, {"error": {"message": long}}).failure["message"]) == MESSAGE_CHARS_MAX
    assert len(told(500, long.encode()).failure["message"]) < MESSAGE_CHARS_MAX


names = st.sampled_from(["error", "message", "code", "detail", "errors", "type", "metadata", "retry_after"])
scalars = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5)
json = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner))


@given(value=json, status=st.integers(400, 599))
@settings(max_examples=200, deadline=None)
def test_any_error_has_a_known_code_and_a_message(value: Any, status: int) -> None:
    event = value if isinstance(value, dict) else {"error": value}
    for found in (
        of_status(status, str(value).encode()),
        told(status, value),
        of_event(event),
        of_failed(event),
    ):
        assert found.failure["code"] in CODES
        assert found.failure["message"]
    error_in(value)
    assert failure("x") == {"code": "server_error", "message": "x"}
