"""The salt of a tenant in a plain body: what it does to the bytes, and what it cannot be tricked into."""

from __future__ import annotations

import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.bodies.cache_salt import salt_of
from gateway.wire.bodies.cache_salt import salted as salting
from gateway.wire.bodies.json_scan import VALUES_MAX
from gateway.wire.errors import Fault, Refusal

A, B = b"a" * 32, b"b" * 32
SALT = salt_of(A, None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "cache_salt"]), inner),
    max_leaves=8,
)


def salted(body: bytes, tenant: bytes = A) -> bytes:
    steps = salting(body, tenant)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: bytes = done.value
            return found


def test_salts_differ_by_tenant_and_by_what_the_caller_chose() -> None:
    salts = [salt_of(tenant, own) for tenant in (A, B) for own in (None, "x", "y")]
    assert len(set(salts)) == 6
    assert all(len(salt) == 64 and int(salt, 16) for salt in salts)
    assert salt_of(A, "") == salt_of(A, None) == salt_of(A, 5)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a": 2.50, "n": 123456789012345678901234567890}\r\n', b',"cache_salt":"%b"}\r\n'),
        (b'{"messages": [{"content": "\\"cache_salt\\": \\u00e9"}] }', b',"cache_salt":"%b"}'),
        (b'{"a": {"cache_salt": 5.00}}', b',"cache_salt":"%b"}'),
        (b"{}", b'"cache_salt":"%b"}'),
        (b" { \n}", b'"cache_salt":"%b"}'),
        (b'\xef\xbb\xbf{"a": 1}', b',"cache_salt":"%b"}'),
        (b'{"a": NaN}', b',"cache_salt":"%b"}'),
    ],
)
def test_nothing_but_the_salt_changes(body: bytes, expected: bytes) -> None:
    end = expected % SALT.encode()
    assert salted(body) == body[: body.rindex(b"}")].rstrip() + end
    assert json.loads(salted(body))["cache_salt"] == SALT


@pytest.mark.parametrize(
    "key", ["cache_salt", r"\u0063ache_salt", r"cache\u005fsalt", r"cache\u005Fsal\u0074"]
)
def test_a_callers_own_salt_however_written_becomes_a_part_of_its_tenants(key: str) -> None:
    body = f'{{"{key}": "x", "model": "tiny", "{key}": "theirs"}}'.encode()
    assert orjson.loads(salted(body)) == {"cache_salt": salt_of(A, "theirs"), "model": "tiny"}
    assert salted(body).count(b"salt") == 1
    assert b"theirs" not in salted(body)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")) | st.just("cache_salt"), JSON))
def test_any_object_has_its_tenants_salt_and_is_else_the_same(body: dict[str, Any]) -> None:
    expected = {**body, "cache_salt": salt_of(A, body.get("cache_salt"))}
    for written in (orjson.dumps(body), json.dumps(body, indent=1).encode()):
        assert json.loads(salted(written)) == expected


@pytest.mark.parametrize("body", [b"", b"null", b"[{}]", b'"{}"', b"{", b'{"a":1} x', b"}", b"\xff\xfe}"])
def test_what_is_no_object_goes_on_as_it_came(body: bytes) -> None:
    assert salted(body) == body


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "tiny"}'.encode("utf-16"),
        '{"model": "tiny"}'.encode("utf-32-le"),
        b'{"cache_salt": "x", "n": NaN}',
        b'{"cache_salt": "x",}',
        b'{"cache_salt": "\\ud800"}',
        b'{"cache_salt": "x", "a": ' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"cache_salt": "x", "a": [' + b"1," * VALUES_MAX + b"1]}",
    ],
)
def test_a_salt_that_could_be_read_in_another_way_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        salted(body)
    assert caught.value.fault is Fault.INVALID


def test_a_large_body_is_not_parsed() -> None:
    """64 MiB of lists would be a gigabyte of objects, and seconds in which nobody else is served."""
    body = b'{"a": [' + b"[]," * (20 * 2**20) + b"1]}"
    started = time.process_time()
    assert salted(body) == body[:-1] + b',"cache_salt":"%b"}' % SALT.encode()
    assert time.process_time() - started < 1
