"""Who a caller is, in each way to tell: one name each, and no two callers with the same."""

from __future__ import annotations

import hashlib

import pytest

from gateway.api.identity.authenticators import authenticator_of, fingerprint, presented
from gateway.config import TenantSettings
from gateway.wire.errors import Fault, Refusal
from gateway.wire.http.head import Head, Headers
from tests.support.heads import head

PEPPER = b"p" * 32


def settings(mode: str, **given: object) -> TenantSettings:
    return TenantSettings.model_validate({"mode": mode, **given})


def sha(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def test_of_two_credentials_each_is_a_tenant_and_so_is_the_same_word_in_another_header() -> None:
    ways = authenticator_of(settings("passthrough"), PEPPER)
    heads = [
        head(authorization="Bearer a"),
        head(authorization="Bearer b"),
        head(x_api_key="Bearer a"),
        head(),
    ]
    tenants = [ways.of(each).tenant for each in heads]
    assert len(set(tenants)) == 4
    assert [ways.of(each).tenant for each in heads] == tenants
    assert not ways.is_gate


def test_another_pepper_makes_other_tenants() -> None:
    asked = head(authorization="Bearer a")
    found = {authenticator_of(settings("passthrough"), bytes([n]) * 32).of(asked).tenant for n in range(3)}
    assert len(found) == 3


def test_without_tenants_all_are_one_and_keep_their_credentials() -> None:
    ways = authenticator_of(settings("none"), PEPPER)
    one, other = ways.of(head(authorization="Bearer a")), ways.of(head())
    assert one.tenant == other.tenant
    assert (one.credential and one.credential.value, other.credential) == ("Bearer a", None)


def test_a_static_key_lets_its_tenant_in_in_each_header_and_ends_here() -> None:
    ways = authenticator_of(settings("static_keys", keys={sha("k1"): "a", sha("k2"): "b"}), PEPPER)
    found = [
        ways.of(each)
        for each in (head(authorization="bearer  k1 "), head(api_key="k1"), head(x_api_key="k1"))
    ]
    assert {(each.name, each.credential) for each in found} == {("a", None)}
    assert ways.of(head(api_key="k2")).tenant != found[0].tenant
    assert ways.is_gate


@pytest.mark.parametrize(
    "asked",
    [
        head(),
        head(authorization="Bearer k3"),
        head(authorization="Basic k1"),
        head(authorization="k1"),
        head(authorization="Bearer"),
        head(api_key=sha("k1")),
    ],
)
def test_whoever_has_none_of_the_keys_is_told_so_and_not_which_there_are(asked: Head) -> None:
    ways = authenticator_of(settings("static_keys", keys={sha("k1"): "a"}), PEPPER)
    with pytest.raises(Refusal) as refusal:
        ways.of(asked)
    assert refusal.value.fault is Fault.UNAUTHENTICATED
    assert b"k1" not in refusal.value.body()


def behind_a_proxy(*values: str, peer: str | None = "10.1.2.3") -> Head:
    return Head("GET", "/", (1, 1), Headers(("X-Tenant", value) for value in values), peer=peer)


def test_a_proxy_names_the_tenant_from_its_network_only() -> None:
    ways = authenticator_of(
        settings("trusted_header", header="x-tenant", header_peers=["10.0.0.0/8"]), PEPPER
    )
    found = ways.of(behind_a_proxy("alice"))
    assert (found.name, found.credential) == ("alice", None)
    assert ways.of(behind_a_proxy("alice", peer="::ffff:10.9.9.9")).tenant == found.tenant
    assert ways.of(behind_a_proxy("bob")).tenant != found.tenant


@pytest.mark.parametrize(
    "asked",
    [
        behind_a_proxy("alice", peer="11.0.0.1"),
        behind_a_proxy("alice", peer=None),
        behind_a_proxy("alice", peer="/run/socket"),
        behind_a_proxy("alice", "bob"),
        behind_a_proxy(),
        behind_a_proxy(""),
        behind_a_proxy("a" * 257),
        behind_a_proxy("a\x00b"),
    ],
)
def test_what_a_caller_smuggles_past_the_proxy_names_nobody(asked: Head) -> None:
    ways = authenticator_of(
        settings("trusted_header", header="x-tenant", header_peers=["10.0.0.0/8"]), PEPPER
    )
    with pytest.raises(Refusal) as refusal:
        ways.of(asked)
    assert refusal.value.fault is Fault.UNAUTHENTICATED


def test_a_key_in_the_azure_or_anthropic_header_is_taken_as_it_is() -> None:
    assert presented(head(x_api_key="Bearer k")) == "Bearer k"
    assert presented(head(authorization="BEARER k")) == "k"


def test_the_eight_digits_of_the_log_are_those_of_the_tenant() -> None:
    static = settings("static_keys", keys={sha("k1"): "a"})
    tenant = authenticator_of(static, PEPPER).of(head(api_key="k1")).tenant
    assert fingerprint("a", static, PEPPER) == tenant.hex()[:8]
    proxy = settings("trusted_header", header="x-tenant", header_peers=["10.0.0.0/8"])
    tenant = authenticator_of(proxy, PEPPER).of(behind_a_proxy("alice")).tenant
    assert fingerprint("alice", proxy, PEPPER) == tenant.hex()[:8]
    assert fingerprint("0a1b2c3d", settings("passthrough"), PEPPER) == "0a1b2c3d"
