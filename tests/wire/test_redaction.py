"""Addresses and keys are found in what servers complain of, and everything else is left as they said it."""

from __future__ import annotations

import orjson
import pytest

from gateway.wire.failures.redaction import BLOT, CHARS_MAX, PATTERNS, Pattern, blotted

GOES: dict[str, list[str]] = {
    "10.9.8.7": [
        "upstream http://10.9.8.7:8000/v1 refused",
        "dial tcp 10.9.8.7:8000: connect: connection refused",
        "connect ECONNREFUSED 10.9.8.7:8000",
        "no host at 10.9.8.7.",
        "the network 10.9.8.7/24 is gone",
        "last error: UNKNOWN: ipv4:10.9.8.7:50051: Failed to connect",
        "HTTPConnectionPool(host='10.9.8.7', port=8000): Max retries exceeded with url: /v1/x",
        "see http%3A%2F%2F10.9.8.7%3A8000%2Fv1",
        r"quoted: {\"url\": \"http:\/\/10.9.8.7:8000\/v1\"}",
        r"twice quoted: {\\\"url\\\": \\\"http:\\/\\/10.9.8.7\\/v1\\\"}",
        r"escaped: http:\u002f\u002f10\u002e9.8.7",
    ],
    "fd00": [
        "cannot reach [fd00::1:7]:8000",
        "no route to fd00::1:7",
        "fd00:0:0:0:0:0:0:7 is down",
        "(fd00::7)",
    ],
    "vllm-svc": [
        "Cannot connect to host vllm-svc:8000 ssl:default [Name or service not known]",
        "dial tcp: lookup vllm-svc on 10.96.0.10:53: no such host",
        "getaddrinfo ENOTFOUND vllm-svc",
        "HTTPConnectionPool(host='vllm-svc', port=8000): Read timed out.",
        "Could not resolve host: vllm-svc",
        "[Errno 111] Connect call failed ('vllm-svc', 8000)",
        "redis://:pass@vllm-svc/0 timed out",
        "vllm-svc.default.svc.cluster.local did not answer",
        "grpc://vllm-svc is gone",
    ],
    "3f2a1b4c5d6e": ["3f2a1b4c5d6e:8000 refused", "3f2a1b4c5d6e-router:443", "to host 3f2a1b4c5d6e ssl:True"],
    "ollama": [
        "connection to ollama:11434 was refused",
        "dial tcp ollama:11434: i/o timeout",
        "http://ollama",
    ],
    "localhost": ["localhost:8080 refused", "proxy error: http://localhost/"],
    "example": [
        "the host llm.example.com is busy",
        "write to ops@gpu.example",
        "https://docs.example.com/x.",
    ],
    "engine.sock": ["dial unix:/run/engine.sock: no such file", "unix:///run/engine.sock"],
    "live": [
        "own key sk-live-abcdefghijklmnopqrstuvwxyz123456",
        "own key sk-live-abc1",
        r"own key sk\u002dlive\u002dabcdefghijklmnopqrstuvwxyz123456",
        "Incorrect API key provided: sk-live-*****************9xyz. You can find it elsewhere.",
    ],
    "AbCd": [
        "token hf_AbCdEfGhIjKlMnOpQrStUvWx12 is bad",
        "gsk_AbCdEfGhIjKlMnOpQrStUvWx12",
        "xai-AbCdEfGhIjKl1MnOp",
        "nvapi-AbCdEfGh1",
        "Bearer AbCdEfGh1",
        "Basic AbCdEfGh1=",
        "x-api-key: AbCdEfGh1234",
        "{'api_key': 'AbCdEfGh1234'}",
        "api_key=AbCdEfGh1234&x=y",
        "The API key AbCdEfGh1234 has expired",
        "Invalid token 'AbCd.1234-efgh'",
        "password is AbCdEf12",
        "AbCdEfGhIjKlMnOpQrStUvWxYz012345 is not allowed",
        "eyJhbGciOiJIUzI1NiJ9.AbCdEf.xyz",
    ],
    "a94a8fe5ccb19ba6": [
        "Access denied for key a94a8fe5ccb19ba61c4c0873d391e987",
        "secret: a94a8fe5ccb19ba6",
    ],
    "AIza": [
        "https://x.example/v1?key=AIzaSyA-0123456789abcdefghij",
        "AIzaSyA-0123456789abcdefghijklm not valid",
    ],
    "AKIA": ["The AWS Access Key Id AKIAIOSFODNN7EXAMPLE does not exist"],
    "MIIE": [
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpA\n-----END RSA PRIVATE KEY----- bad",
        "-----BEGIN KEY-----MIIE",
    ],
}

STAYS = [
    "",
    "The model `meta-llama/Llama-3.3-70B-Instruct-Turbo` does not exist.",
    "model 'qwen2.5:14b' not found, try pulling it first",
    "The model `gpt-oss:20b` is loading (12:34:56).",
    "This model's maximum context length is 131072 tokens. However, you requested 140000 tokens (139000 in "
    "the messages, 1000 in the completion). Please reduce the length of the messages.",
    "Invalid value: 'x'. Supported values are: 'low', 'medium', and 'high'.",
    "We could not parse the JSON body of your request: line 1 column 5 (char 4)",
    "Missing required parameter: 'messages[0].content[1].image_url.url'.",
    "body.messages.0.content: Input should be a valid string",
    "KeyError: 'layers.12.weight'",
    "Unrecognized key(s) in object: 'foo1'",
    "Invalid 'tools[0].function.name': string does not match pattern '^[a-zA-Z0-9_-]+$'.",
    "temperature must be between 0 and 2, got 2.5",
    "Rate limit reached for requests per min. Limit: 3 / min. Please try again in 20s.",
    "CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 79.15 GiB total capacity)",
    "max_tokens: 4096 is larger than max_model_len=2048",
    "Unknown stop token id 151643 in token_ids",
    "request id req_7f3a9c1e2b4d5f60718293a4b5c6d7e8, call call_AbCdEfGhIjKlMnOpQrStUvWx",
    "chatcmpl-8aXyZ0123456789AbCdEfGhIjKlM failed",
    "3f2504e0-4f89-11d3-9a0c-0305e82c3301 not found",
    "at 2026-11-28T12:34:56Z, vllm 0.11.2, CUDA 12.8",
    "std::bad_alloc in at::native::empty",
    "Error code: 400 - {'object': 'error', 'message': 'bad', 'type': 'BadRequestError'}",
    'File "/opt/vllm/engine.py", line 123, in step',
    "The API key is missing.",
    "Bearer authentication is required",
    "No tokens left: the token budget is used up",
    "Datei nicht gefunden: „Straße“ – 日本語",
    "[DONE]",
    r"C:\models\new is no path; \u00e9 and \n are no escapes of ours",
    "a and/or b; ratio 3:4; key-value store; sk-learn; risk-averse",
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.kind)
def test_each_pattern_finds_its_example(pattern: Pattern) -> None:
    found = pattern.regex.search(pattern.example)
    assert found is not None
    shown = found["it"] if "it" in pattern.regex.groupindex else found[0]
    assert shown not in blotted(pattern.example)


@pytest.mark.parametrize(("part", "message"), [(part, one) for part, some in GOES.items() for one in some])
def test_nothing_is_left_of_an_address_or_a_key(part: str, message: str) -> None:
    assert part in message or "\\u00" in message
    assert part not in blotted(message)
    within = f"It said: {message} And that was all."
    assert part not in blotted(within)
    assert blotted(within).startswith("It said: ")
    assert part not in blotted(
        orjson.dumps({"error": {"message": message}}).decode()
    )  # in a message once more


@pytest.mark.parametrize("message", STAYS)
def test_other_words_stay_as_they_are(message: str) -> None:
    assert blotted(message) == message


def test_the_words_around_stay() -> None:
    message = (
        "upstream http://10.9.8.7:8000/v1 refused key sk-tenant-A-secret1; try https://a.example/b, or wait."
    )
    assert blotted(message) == f"upstream {BLOT} refused key {BLOT}; try {BLOT}, or wait."


def test_a_message_that_is_cut_within_a_key_shows_none_of_it() -> None:
    message = "Incorrect API key provided: sk-live-abcdefghijkl"
    for length in range(len(message) - 17, len(message)):
        assert blotted(message[:length]) == f"Incorrect API key provided: {BLOT}"


def test_a_long_text_is_cut() -> None:
    assert blotted("a " * CHARS_MAX) == "a " * (CHARS_MAX // 2)
