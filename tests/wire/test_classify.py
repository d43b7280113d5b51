"""Whose a body is, and what is refused of a background one before it is parsed."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.bodies.classify import Background, Chained, RequestKind, Standalone
from gateway.wire.bodies.classify import classify as classifying
from gateway.wire.bodies.json_scan import DEPTH_MAX, PLAIN_VALUES_MAX, VALUES_MAX, check_values, look_over
from gateway.wire.errors import Fault, Refusal

TEXT = st.text(st.characters(codec="utf-8"))


def classify(body: bytes) -> RequestKind:
    steps = classifying(body)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            kind: RequestKind = done.value
            return kind


def refusal(body: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        classify(body)
    assert caught.value.fault is Fault.INVALID
    return caught.value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        b'"background"',
        b'["background", true]',
        b'{"model": "tiny", "input": "Hello"}',
        b'{"background": false}',
        b'{"background": null}',
        b'{"background": }',
        b'{"background": None}',
        b'{"input": {"background": 1}}',
        b'["background", 1]',
        b'{"input": "\\"background\\": true"}',
        b'{"input": {"background": true}}',
        b'{"Background": true}',
        b'{"previous_response_id": null}',
        b'{"previous_response_id": ""}',
        b'{"previous_response_id": 5}',
        b'{"background": false,',
        b'{"previous_response_id": "resp_1",',
        b"\xff\xfe\xff",
    ],
    ids=repr,
)
def test_is_the_backends_own_business(body: bytes) -> None:
    assert classify(body) == Standalone()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b'"true"', "a string"),
        (b'"false"', "a string"),
        (b'""', "a string"),
        (b"1", "a number"),
        (b"0", "a number"),
        (b"-1.5e3", "a number"),
        (b"NaN", "a number"),
        (b"Infinity", "a number"),
        (b"[]", "an array"),
        (b"[true]", "an array"),
        (b"{}", "an object"),
        (b'{"enabled": true}', "an object"),
    ],
)
@pytest.mark.parametrize("more", [b"", b', "previous_response_id": "resp_1"', b', "stream": true'])
def test_background_of_another_type_is_refused(value: bytes, kind: str, more: bytes) -> None:
    for key in (b"background", b"back\\u0067round"):
        refused = refusal(b'{"' + key + b'" :\n' + value + more + b"}")
        assert (refused.param, refused.code) == ("background", "invalid_type")
        assert (
            refused.message == f"Invalid type for 'background': expected a boolean, but got {kind} instead."
        )


@pytest.mark.parametrize(
    "body",
    [
        b'{"background": true}',
        b'{"background":true}',
        b'{\n"background"\t:\r\ntrue }',
        b'{"\\u0062ackground": true}',
        b'{"backgroun\\u0064": true}',
        b'{"\\u0062\\u0061\\u0063\\u006b\\u0067\\u0072\\u006f\\u0075\\u006e\\u0064": true}',
        b'{"background": true, "previous_response_id": "resp_1"}',
    ],
    ids=repr,
)
def test_is_a_background_request(body: bytes) -> None:
    assert isinstance(classify(body), Background)


@pytest.mark.parametrize("spelling", [b"previous_response_id", b"previous\\u005fresponse_id"])
@pytest.mark.parametrize("background", [b"", b'"background": false, '])
def test_is_a_chained_request(spelling: bytes, background: bytes) -> None:
    body = b"{" + background + b'"' + spelling + b'": "resp_1"}'
    assert classify(body) == Chained(orjson.loads(body), "resp_1")


@pytest.mark.parametrize(
    "body",
    [b'{"background": true', b'{"background" : true, "input": }', b'\xef\xbb\xbf {"background": true}'],
)
def test_background_request_that_is_no_json_is_refused_in_our_words(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        classify(body)
    assert (caught.value.fault, caught.value.code) == (Fault.INVALID, "invalid_json")


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.text("ab"),
        lambda inner: st.dictionaries(
            st.sampled_from(["background", "previous_response_id", "input"]), inner
        ),
    )
)
@settings(max_examples=100, deadline=None)
def test_only_a_true_background_at_the_top_makes_it_ours(value: Any) -> None:
    said = value.get("background") if isinstance(value, dict) else None
    for body in (orjson.dumps(value), orjson.dumps(value).replace(b"b", b"\\u0062")):
        if isinstance(said, bool | None):
            assert isinstance(classify(body), Background) == (said is True)
        else:
            assert refusal(body).code == "invalid_type"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"background": true, "background": false}', "background"),
        (b'{"background": false, "background": true}', "background"),
        (b'{"background": false, "back\\u0067round": true}', "background"),
        (b'{"background": null, "background": null, "x": NaN}', "background"),
        (b'{"background": true, "model": "a", "model": "b"}', "model"),
        (b'{"background": true, "m": 1, "\\u006d": 1}', "m"),
        (b'{"background": true, "a b": 1, "a b": 1}', None),
        (b'{"background": true, "input": [{"a": [1, {"b": 2, "c": 3, "b": 4}]}]}', None),
        (b'{"background": true, "metadata": {"": 1, "": 2}}', None),
    ],
    ids=repr,
)
def test_background_request_with_a_key_twice_is_refused(body: bytes, param: str | None) -> None:
    refused = refusal(body)
    assert (refused.code, refused.param) == ("duplicate_key", param)
    assert param is None or param in refused.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'{"background": false, "a": 1, "a": 2}',
        b'{"background": true, "a": {"b": 1}, "c": {"b": 1}, "b": [{"b": 1}, {"b": 2}]}',
        b'{"a": {"background": 1, "background": 2}, "x": "background"}',
        b'{"background": false, "x": NaN}',
        b'{"input": "' + b"[" * 1000 + b'", "background": false}',
        b'{"input": ' + b"[" * 1000 + b"]" * 1000 + b', "background": false}',
    ],
    ids=lambda body: repr(body)[:60],
)
def test_a_key_twice_is_nobodys_business_elsewhere(body: bytes) -> None:
    assert isinstance(classify(body), Background) == (b"true" in body)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_what_is_no_number_in_json_is_named(number: bytes) -> None:
    refused = refusal(b'{"background": true, "temperature": ' + number + b"}")
    assert refused.code == "invalid_json"
    assert "NaN and Infinity" in refused.message
    assert "line 1 column" in refused.message


def test_a_background_request_may_be_nested_so_deep_and_no_deeper() -> None:
    for more, is_good in ((0, True), (1, False), (50_000, False)):
        levels = DEPTH_MAX - 1 + more
        body = b'{"background": true, "a": ' + b"[" * levels + b"]" * levels + b"}"
        if is_good:
            assert isinstance(classify(body), Background)
        else:
            assert refusal(body).code == "too_deep"
            assert isinstance(classify(body.replace(b"true", b"false")), Standalone)


@pytest.mark.parametrize("value", [b"[]", b"{}", b"1", b'"a"', b'{"a":1}'])
def test_a_request_may_have_so_many_values_and_no_more(value: bytes) -> None:
    many = b'{"background": true, "input": [' + b",".join([value] * (VALUES_MAX // 4)) + b"]}"
    assert isinstance(classify(many), Background)
    too_many = many.replace(b"[" + value, b"[" + b",".join([value] * VALUES_MAX), 1)
    assert refusal(too_many).code == "too_many_values"
    chained = too_many.replace(b'"background": true', b'"previous_response_id": "resp_1"')
    assert refusal(chained).code == "too_many_values"
    assert classify(too_many.replace(b"background", b"foreground")) == Standalone()


@pytest.mark.parametrize(
    ("value", "is_good"),
    [(b"1", True), (b"[]", False), (b'{"a":1}', False), (b'"' + b",[{" * 10 + b'"', True)],
)
def test_a_plain_body_is_parsed_if_it_has_no_more_than_a_million_values(value: bytes, is_good: bool) -> None:
    body = b'{"input": [' + b",".join([value] * (PLAIN_VALUES_MAX * 3 // 4)) + b'], "model": "m"}'
    if is_good:
        assert list(check_values(body))
    else:
        with pytest.raises(Refusal, match="more than 1000000 values"):
            list(check_values(body))


def test_a_plain_body_that_is_no_object_is_refused_by_its_size_alone() -> None:
    with pytest.raises(Refusal, match="values"):
        list(check_values(b"[" * PLAIN_VALUES_MAX * 2))


def test_commas_and_brackets_in_a_text_are_no_values() -> None:
    text = orjson.dumps({"background": True, "input": '[{"a": 1}, ' * VALUES_MAX})
    assert isinstance(classify(text), Background)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_a_body_that_is_not_utf_8_is_refused(encoding: str) -> None:
    assert refusal('{"background": true}'.encode(encoding)).code == "invalid_json"


@pytest.mark.parametrize(
    "body",
    [
        b'{"input": "' + b"hello, " * (5 * 2**20 // 7) + b'", "background": true}',
        b'{"input": "' + b"\\n" * (5 * 2**20 // 2) + b'", "background": true}',
        b'{"x": "' + b'", "x": "' * (2 * 2**20 // 9) + b'", "background": false}',
        b"[" * (2 * 2**20) + b'"background"',
        b'{"background":' * (2 * 2**20 // 14),
        b'{"background": true, "x": "' + b"\\" * (2 * 2**20 + 1),
    ],
    ids=lambda body: repr(body)[:40],
)
def test_nobody_waits_long_for_a_large_body_to_be_looked_over(body: bytes) -> None:
    longest_s, steps = 0.0, look_over(body)
    while True:
        started = time.thread_time()
        done = next(steps, look_over)
        longest_s = max(longest_s, time.thread_time() - started)
        if done is look_over:
            break
    assert longest_s < 0.1


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
        lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    )
)
@settings(max_examples=200, deadline=None)
def test_what_is_well_formed_is_taken_as_it_is(value: Any) -> None:
    body = {"background": True, "input": value}
    assert classify(orjson.dumps(body)) == Background(body)
    assert classify(orjson.dumps(body, option=orjson.OPT_INDENT_2)) == Background(body)
