"""Tokens: who is let in by one, and every kind that is not (RFC 8725)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway.api.identity.authenticators import Authenticator, authenticator_of, fingerprint
from gateway.config import TenantSettings
from gateway.wire.errors import Fault, Refusal
from tests.acceptance.tokens import AUDIENCE, ISSUER, issuer, pem, stranger, token
from tests.support.heads import head

PEPPER = b"p" * 32


def settings(tmp_path: Path) -> TenantSettings:
    keys = tmp_path / "issuer.pem"
    keys.write_bytes(pem(issuer()))
    keys.chmod(0o600)
    return TenantSettings(mode="jwt", jwt_keys_file=keys, jwt_issuer=ISSUER, jwt_audience=AUDIENCE)


@pytest.fixture
def ways(tmp_path: Path) -> Authenticator:
    return authenticator_of(settings(tmp_path), PEPPER)


def test_each_subject_is_a_tenant_and_its_token_ends_here(ways: Authenticator, tmp_path: Path) -> None:
    alice, bob = (ways.of(head(authorization=f"Bearer {token(sub=name)}")) for name in ("alice", "bob"))
    assert (alice.name, alice.credential) == ("alice", None)
    assert alice.tenant != bob.tenant
    again = ways.of(head(x_api_key=token(jti="another")))
    assert again.tenant == alice.tenant
    assert fingerprint("alice", settings(tmp_path), PEPPER) == alice.tenant.hex()[:8]


@pytest.mark.parametrize(
    ("presented", "why"),
    [
        ("sk-no-token", "must be a JSON Web Token"),
        (token(stranger()), "not signed by the issuer"),
        (token(algorithm="RS512"), "algorithm that is not accepted"),
        (token("s" * 64, algorithm="HS256"), "algorithm that is not accepted"),
        (token(aud="another"), "not for this gateway"),
        (token(iss="https://another.test"), "not for this gateway"),
        (token(sub=None), "not for this gateway"),
        (token(sub=""), "not for this gateway"),
        (token(exp=None), "not for this gateway"),
        (token(nbf=int(time.time()) + 3600), "not for this gateway"),
        (token(exp=int(time.time()) - 3600), "has expired"),
    ],
)
def test_a_token_that_is_not_what_it_must_be_says_why_and_lets_nobody_in(
    ways: Authenticator, presented: str, why: str
) -> None:
    with pytest.raises(Refusal, match=why) as refusal:
        ways.of(head(authorization=f"Bearer {presented}"))
    assert refusal.value.fault is Fault.UNAUTHENTICATED
    assert presented.encode() not in refusal.value.body()


def test_a_token_that_has_just_expired_is_good_within_the_skew_of_clocks(ways: Authenticator) -> None:
    assert ways.of(head(authorization=f"Bearer {token(exp=int(time.time()) - 10)}")).name == "alice"
