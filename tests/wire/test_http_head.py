"""What a head tells by itself."""

from __future__ import annotations

import pytest

from gateway.wire.errors import Fault, Refusal
from gateway.wire.http.head import Credential, Head, Headers


def head(*pairs: tuple[str, str]) -> Head:
    return Head("GET", "/v1/models", (1, 1), Headers(pairs))


def test_fields_are_found_in_every_spelling_and_keep_their_own() -> None:
    headers = Headers([("X-Tag", "a"), ("x-tag", "b, C")])
    assert headers.pairs == (("X-Tag", "a"), ("x-tag", "b, C"))
    assert headers.all("x-tag") == ["a", "b, C"]
    assert headers.listed("x-tag") == ["a", "b", "c"]
    assert (headers.first("x-tag"), headers.first("x-other")) == ("a", None)
    assert "x-tag" in headers
    assert "x-other" not in headers


@pytest.mark.parametrize("name", ["Authorization", "API-Key", "X-Api-Key"])
def test_credential_is_found_under_each_name(name: str) -> None:
    assert head(("Accept", "x"), (name, "v")).credential == Credential(name.lower(), "v")


def test_no_credential_is_none() -> None:
    assert head(("Accept", "x")).credential is None


@pytest.mark.parametrize("second", ["Authorization", "authorization", "api-key", "x-api-key"])
def test_second_credential_is_refused_without_naming_it(second: str) -> None:
    with pytest.raises(Refusal) as caught:
        _ = head(("Authorization", "Bearer secret-1"), (second, "secret-2")).credential
    assert caught.value.fault is Fault.INVALID
    assert "secret" not in caught.value.message


def test_a_credential_is_in_no_representation_of_a_head() -> None:
    shown = head(("Authorization", "Bearer secret"))
    assert "secret" not in f"{shown!r} {shown.credential!r}"
