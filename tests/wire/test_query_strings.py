"""The queries of GET: what is read, what is refused."""

from __future__ import annotations

import pytest

from gateway.wire.errors import Fault, Refusal
from gateway.wire.query_strings import INCLUDE, ListItems, Retrieve, parse_list_items, parse_retrieve

Query = dict[str, list[str]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, Retrieve(False, -1)),
        ({"stream": ["false"]}, Retrieve(False, -1)),
        ({"stream": ["0"]}, Retrieve(False, -1)),
        ({"stream": ["true"]}, Retrieve(True, -1)),
        ({"stream": ["True"]}, Retrieve(True, -1)),
        ({"stream": ["1"]}, Retrieve(True, -1)),
        ({"stream": ["true"], "starting_after": ["0"]}, Retrieve(True, 0)),
        ({"stream": ["true"], "starting_after": ["41"]}, Retrieve(True, 41)),
        ({"stream": ["true"], "starting_after": ["9" * 18]}, Retrieve(True, 10**18 - 1)),
        ({"include_obfuscation": ["true"]}, Retrieve(False, -1)),
        ({"include[]": ["message.output_text.logprobs"]}, Retrieve(False, -1)),
        ({"unknown": ["x"]}, Retrieve(False, -1)),
    ],
    ids=str,
)
def test_retrieve_reads(query: Query, expected: Retrieve) -> None:
    assert parse_retrieve(query) == expected


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ({"stream": ["yes"]}, "stream", "invalid_type"),
        ({"stream": [""]}, "stream", "invalid_type"),
        ({"stream": ["true", "false"]}, "stream", "invalid_value"),
        ({"include_obfuscation": ["maybe"]}, "include_obfuscation", "invalid_type"),
        ({"stream": ["true"], "starting_after": ["-1"]}, "starting_after", "invalid_type"),
        ({"stream": ["true"], "starting_after": [""]}, "starting_after", "invalid_type"),
        ({"stream": ["true"], "starting_after": ["1.0"]}, "starting_after", "invalid_type"),
        ({"stream": ["true"], "starting_after": ["٣"]}, "starting_after", "invalid_type"),
        ({"stream": ["true"], "starting_after": ["1\n"]}, "starting_after", "invalid_type"),
        ({"stream": ["true"], "starting_after": ["9" * 19]}, "starting_after", "invalid_type"),
        ({"stream": ["true"], "starting_after": ["1", "2"]}, "starting_after", "invalid_value"),
        ({"starting_after": ["1"]}, "starting_after", "unsupported_parameter"),
        ({"include[]": ["nothing"]}, "include", "invalid_value"),
        ({"include": ["reasoning.encrypted_content"]}, "include", "invalid_value"),
        ({"include[]": ["reasoning.encrypted_content"]}, "include", "invalid_value"),
    ],
    ids=str,
)
def test_retrieve_refuses(query: Query, param: str, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_retrieve(query)
    assert (caught.value.fault, caught.value.param, caught.value.code) == (Fault.INVALID, param, code)


def test_encrypted_content_is_refused_in_the_words_of_the_api() -> None:
    with pytest.raises(Refusal, match=r"^Encrypted content cannot be requested for persisted responses\.$"):
        parse_retrieve({"include[]": ["reasoning.encrypted_content"]})


@pytest.mark.parametrize("value", sorted(INCLUDE - {"reasoning.encrypted_content"}))
@pytest.mark.parametrize("name", ["include", "include[]"])
def test_known_includes_are_taken_in_both_spellings(name: str, value: str) -> None:
    assert parse_retrieve({name: [value]}) == Retrieve(False, -1)
    assert parse_list_items({name: [value, value]}).limit == 20


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ListItems(20, "desc", None, None)),
        ({"limit": ["1"]}, ListItems(1, "desc", None, None)),
        ({"limit": ["100"], "order": ["asc"]}, ListItems(100, "asc", None, None)),
        ({"after": ["msg_1"], "before": ["msg_2"]}, ListItems(20, "desc", "msg_1", "msg_2")),
        ({"after": [""], "before": [""]}, ListItems(20, "desc", None, None)),
    ],
    ids=str,
)
def test_list_items_reads(query: Query, expected: ListItems) -> None:
    assert parse_list_items(query) == expected


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": ["0"]}, "limit"),
        ({"limit": ["101"]}, "limit"),
        ({"limit": ["-5"]}, "limit"),
        ({"limit": ["ten"]}, "limit"),
        ({"limit": ["9" * 5000]}, "limit"),
        ({"limit": ["5", "6"]}, "limit"),
        ({"limit": [""]}, "limit"),
        ({"order": [""]}, "order"),
        ({"order": ["up"]}, "order"),
        ({"after": ["a", "b"]}, "after"),
        ({"before": ["a", "b"]}, "before"),
        ({"include": ["nothing"]}, "include"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_list_items_refuses(query: Query, param: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_list_items(query)
    assert (caught.value.fault, caught.value.param) == (Fault.INVALID, param)
