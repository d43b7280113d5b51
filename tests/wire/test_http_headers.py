"""Each header rule by itself, in both directions; see the comments in the module for the reasons."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.wire.http.head import CREDENTIALS, Headers
from gateway.wire.http.headers import (
    ask_to_upgrade,
    background_headers,
    of_job,
    storable,
    to_backend,
    to_client,
    trace_context,
)


def sent(
    *pairs: tuple[str, str], own: dict[str, str] | None = None, key: str | None = None
) -> CIMultiDict[str]:
    own = own or ({} if key is None else {"Authorization": f"Bearer {key}"})
    withheld = frozenset() if key is None else CREDENTIALS
    return CIMultiDict(to_backend(Headers(pairs), request_id="req_ours", own=own, withheld=withheld))


def answered(*pairs: tuple[str, str]) -> CIMultiDict[str]:
    return CIMultiDict(to_client(pairs, request_id="req_ours"))


OURS = {"x-request-id", "via"}


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authorization",
        "Proxy-Anything",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "HTTP2-Settings",
        "Host",
        "Expect",
        "Cookie",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Anything",
        "X-Real-IP",
        "Idempotency-Key",
        "Last-Event-ID",
        "X_Forwarded_For",
        "content.length",
    ],
)
@pytest.mark.parametrize("spell", [str, str.upper, str.lower])
def test_dropped_on_the_way_to_the_backend(name: str, spell: type[str]) -> None:
    assert {key.lower() for key in sent((spell(name), "1"))} == OURS
    assert background_headers(Headers([(spell(name), "1")])) == {}


@pytest.mark.parametrize(
    "name", ["User-Agent", "Accept", "Content-Type", "Content-Encoding", "OpenAI-Beta", "Via"]
)
def test_kept_on_the_way_to_the_backend(name: str) -> None:
    assert sent((name, "as it was")).getall(name)[0] == "as it was"


def test_what_connection_names_is_dropped_too() -> None:
    result = sent(
        ("Connection", "close, X-One"),
        ("Connection", " x-two "),
        ("X-One", "1"),
        ("X-Two", "2"),
        ("X-Three", "3"),
    )
    assert {key.lower() for key in result} == OURS | {"x-three"}


def test_what_connection_names_is_dropped_in_every_spelling() -> None:
    for nominated in ("X-One", "x_one", "X.One"):
        for name in ("X-One", "X_One", "x.one"):
            pairs = (("Connection", nominated), (name, "1"), ("X-Two", "2"))
            assert {key.lower() for key in sent(*pairs)} == OURS | {"x-two"}
            assert name not in answered(*pairs)
            assert "X-Two" in answered(*pairs)


def test_callers_request_id_is_replaced() -> None:
    assert sent(("X-Request-Id", "theirs"), ("x-request-id", "more")).getall("X-Request-Id") == ["req_ours"]


def test_via_follows_those_before_it() -> None:
    assert sent(("Via", "1.1 nginx")).getall("Via") == ["1.1 nginx", "1.1 backburner"]


def test_repeated_headers_stay_repeated_in_one_spelling() -> None:
    result = sent(("X-Tag", "a"), ("x-tag", "b"))
    assert [(name, value) for name, value in result.items() if name.lower() == "x-tag"] == [
        ("X-Tag", "a"),
        ("X-Tag", "b"),
    ]


def test_values_that_cannot_be_sent_are_dropped() -> None:
    not_utf8 = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert "X-Name" not in sent(("X-Name", not_utf8))
    assert "X-Name" not in answered(("X-Name", not_utf8))
    assert "X-Name" not in answered(("X-Name", "a\x01b"))
    assert sent(("X-Name", "café"))["X-Name"] == "café"


@pytest.mark.parametrize("name", ["Content-Length", "X-Request-Id", "Via", "X-Tag"])
def test_what_the_gateway_sets_takes_the_place_of_the_callers_in_any_spelling(name: str) -> None:
    assert sent((name, "theirs"), own={name.lower(): "ours"}).getall(name) == ["ours"]


@pytest.mark.parametrize(
    ("offered", "may_have_keys", "expected"),
    [
        (["realtime, openai-insecure-api-key.k", "beta"], False, ["realtime,beta"]),
        (["realtime, openai-insecure-api-key.k"], True, ["realtime,openai-insecure-api-key.k"]),
        (["OpenAI-Insecure-API-Key.k"], False, []),
        ([], False, []),
    ],
)
def test_handshake_offers_the_clients_protocols_without_a_key_that_is_not_for_the_backend(
    offered: list[str], may_have_keys: bool, expected: list[str]
) -> None:
    asked = [("X-One", "1"), *(("Sec-WebSocket-Protocol", each) for each in offered)]
    result = CIMultiDict(ask_to_upgrade(asked, may_have_keys=may_have_keys))
    assert result.getall("Sec-WebSocket-Protocol", []) == expected
    assert (result["X-One"], result["Connection"], result["Upgrade"]) == ("1", "Upgrade", "websocket")


@pytest.mark.parametrize("name", ["Authorization", "api-key", "X-Api-Key"])
def test_callers_credential_goes_on_unless_the_backend_has_a_key(name: str) -> None:
    assert sent((name, "Bearer theirs"))[name] == "Bearer theirs"
    result = sent((name, "Bearer theirs"), key="k")
    assert result.getall("Authorization") == ["Bearer k"]
    assert "Bearer theirs" not in result.values()


def test_background_call_gets_the_callers_headers_without_those_of_body_answer_and_credential() -> None:
    result = background_headers(
        Headers(
            [
                ("User-Agent", "sdk/1"),
                ("OpenAI-Organization", "org"),
                ("X-Tag", "a"),
                ("x-tag", "b"),
                ("Via", "1.1 nginx"),
                ("X-Request-Id", "theirs"),
                *((name, "1") for name in ("Accept", "Accept-Encoding", "Content-Length", "Content-Type")),
                *((name, "1") for name in ("Content-Encoding", "Authorization", "api-key", "x-api-key")),
            ]
        )
    )
    assert result == {
        "User-Agent": "sdk/1",
        "OpenAI-Organization": "org",
        "X-Tag": "a, b",
        "Via": "1.1 nginx",
    }


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "Keep-Alive",
        "Proxy-Authenticate",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Set-Cookie",
        "Set_Cookie",
        "X-Accel-Redirect",
        "X.Accel.Redirect",
        "X_Request_Id",
        "Alt-Svc",
    ],
)
def test_dropped_on_the_way_to_the_client(name: str) -> None:
    assert set(answered((name, "1"))) == {"Server", "X-Request-Id", "X-Content-Type-Options", "Cache-Control"}


def test_what_the_backends_connection_names_is_dropped_too() -> None:
    assert "X-One" not in answered(("Connection", "x-one"), ("X-One", "1"))


def test_answer_says_what_it_must() -> None:
    result = answered(("Server", "uvicorn"), ("X-Request-Id", "theirs"), ("X-Content-Type-Options", "x"))
    assert result.getall("Server") == ["backburner"]
    assert result.getall("X-Request-Id") == ["req_ours"]
    assert result.getall("X-Content-Type-Options") == ["nosniff"]
    assert result.getall("Cache-Control") == ["no-store"]
    assert "X-Accel-Buffering" not in result


def test_backends_cache_control_stands() -> None:
    assert answered(("cache-control", "max-age=60")).getall("Cache-Control") == ["max-age=60"]


def test_event_stream_is_not_buffered_by_nginx() -> None:
    result = answered(("Content-Type", "text/event-stream; charset=utf-8"), ("X-Accel-Buffering", "yes"))
    assert result.getall("X-Accel-Buffering") == ["no"]


def test_body_headers_and_repeats_reach_the_client_as_they_are() -> None:
    pairs = (
        ("Content-Length", "5"),
        ("Content-Encoding", "gzip"),
        ("Content-Type", "a/b"),
        ("Vary", "one"),
        ("Vary", "two"),
    )
    assert list(answered(*pairs).items())[:5] == list(pairs)


TRACED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_trace_is_known_whatever_its_spelling_and_left_if_it_is_none() -> None:
    assert trace_context({"TraceParent": TRACED, "Tracestate": "a=1", "x": "y"}) == {
        "traceparent": TRACED,
        "tracestate": "a=1",
    }
    no_trace, no_span = "00-" + "0" * 32 + TRACED[35:], TRACED[:36] + "0" * 16 + "-01"
    for bad in (TRACED.upper(), TRACED[:-1], f"{TRACED} ", no_trace, no_span, ""):
        assert trace_context({"traceparent": bad, "tracestate": "a=1"}) == {}


def test_a_job_goes_on_with_its_own_trace_or_else_with_its_callers() -> None:
    callers = {"TraceParent": TRACED, "tracestate": "a=1", "x": "y"}
    kept = of_job(callers, request_id="r", key="k", own={})
    assert (kept["TraceParent"], kept["tracestate"]) == (TRACED, "a=1")
    sent = of_job(callers, request_id="r", key="k", own={}, traced={"traceparent": "mine"})
    assert {name.lower(): sent[name] for name in sent if "trace" in name.lower()} == {"traceparent": "mine"}
    assert sent["x"] == "y"


def test_only_what_is_known_to_hold_no_secret_may_lie_on_disk() -> None:
    trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    kept, others = {"User-Agent": "sdk/1", "OpenAI-Beta": "x"}, {"X-Session": "s", "tracestate": "k=v"}
    assert storable({**kept, **trace, **others}) == ({**kept, **trace}, others)
    forged = {"traceparent": "a secret"}
    assert storable({**kept, **forged}) == (kept, forged), "it is no trace: it may be anything"
