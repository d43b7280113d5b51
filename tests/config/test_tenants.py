"""Settings about callers: what each mode needs, and that no mistake shows a key."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.config import ConfigError, CredentialSettings, Settings, TenantSettings, load

SECRET = "sk-very-secret"
HASH = hashlib.sha256(b"key").hexdigest()
KEY = base64.b64encode(b"k" * 32).decode()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def given(text: str, **environ: str) -> Settings:
    Path("config.yaml").write_text(f"upstream:\n  url: http://model:8000/v1\n{text}")
    return load({}, environ=environ, file=Path("config.yaml"))


def problem(text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        given(text, **environ)
    (found,) = caught.value.problems
    assert SECRET not in found
    return found


def file(name: str, content: str | bytes, mode: int = 0o600) -> Path:
    path = Path(name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{mode: static_keys}", "mode static_keys needs tenants.keys or tenants.keys_file"),
        (
            "{mode: jwt}",
            "mode jwt needs tenants.jwt_keys_file and tenants.jwt_issuer and tenants.jwt_audience",
        ),
        ("{mode: trusted_header, header: X-Tenant}", "mode trusted_header needs tenants.header_peers"),
        ("{mode: trusted_header, header_peers: ['::1']}", "mode trusted_header needs tenants.header"),
        (f"{{keys: {{{HASH}: a}}}}", "tenants.keys is for mode static_keys, and tenants.mode is passthrough"),
        ("{mode: none, header: X-A}", "tenants.header is for mode trusted_header, and tenants.mode is none"),
        ("{jwt_leeway_s: 5}", "tenants.jwt_leeway_s is for mode jwt, and tenants.mode is passthrough"),
        ("{allow_anyone: true}", "tenants.allow_anyone is for mode none, and tenants.mode is passthrough"),
        (f"{{mode: static_keys, keys: {{{SECRET}: a}}}}", "key 1: must be given as its SHA-256"),
        (f"{{mode: static_keys, keys: {{{HASH}: ''}}}}", "key 1: its tenant must be 1 to 128 characters"),
        ("{header: X_Tenant}", "must be the name of a header: letters, digits and -"),
        ("{header: authorization}", "has another meaning, and cannot name the tenant"),
        ("{header_peers: [10.0.0.1/8]}", "must be networks or addresses"),
        ("{jwt_algorithms: [HS256]}", "jwt_algorithms: item 1: Input should be 'RS256'"),
        ("{jwt_algorithms: [none]}", "jwt_algorithms: item 1: Input should be 'RS256'"),
        (f"{{pepper: {SECRET}}}", "must be 32 or more characters of printable ASCII"),
        ("{mode: everybody}", "Input should be 'passthrough'"),
    ],
)
def test_a_mode_is_given_what_it_needs_and_no_more(text: str, complaint: str) -> None:
    found = problem(f"tenants: {text}\n")
    assert found.startswith("config.yaml:3: ")
    assert complaint in found


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("  cache_salt: true\ntenants: {mode: none}\n", "all callers are one, and would get one salt"),
        ("  cache_salt: true\n  set_fields: {cache_salt: x}\n", "each tenant gets one of its own"),
        ("  cache_salt: true\n  drop_fields: [cache_salt]\n", "each tenant gets one of its own"),
    ],
)
def test_a_salt_that_would_tell_no_tenants_apart_is_refused(text: str, complaint: str) -> None:
    found = problem(text)
    assert found.startswith(("config.yaml:3: ", "config.yaml:4: "))
    assert complaint in found
    assert "cache_salt" in found


def test_tiers_are_allowed_by_tenant() -> None:
    tiers = "{a: [flex], '*': [priority, default]}"
    found = given(f"tenants: {{mode: static_keys, keys: {{{HASH}: a}}, tiers_allowed: {tiers}}}\n").tenants
    assert found.tiers_allowed == {"a": ("flex",), "*": ("priority", "default")}
    found = given("tenants: {tiers_allowed: {0a1b2c3d: [flex]}}\n").tenants
    assert found.tiers_allowed == {"0a1b2c3d": ("flex",)}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{tiers_allowed: {a: [flex]}}", "in mode passthrough tenants have no names"),
        ("{mode: none, tiers_allowed: {a: [flex]}}", "in mode none tenants have no names"),
        ("{tiers_allowed: {'*': [best]}}", "tiers_allowed: Input should be 'priority', 'default' or 'flex'"),
        ("{tiers_allowed: {'*': []}}", "tenants.tiers_allowed: must have at least one tier"),
        ("{tiers_allowed: {'*': flex}}", "tenants.tiers_allowed: must be a list"),
        ("{tiers_allowed: [flex]}", "tenants.tiers_allowed: must be a mapping"),
    ],
)
def test_tiers_that_nobody_could_have_are_refused(text: str, complaint: str) -> None:
    found = problem(f"tenants: {text}\n")
    assert found.startswith("config.yaml:3: ")
    assert complaint in found


@pytest.mark.parametrize(
    ("host", "is_fine"),
    [
        *(("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("LOCALHOST", True)),
        *(("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("127.0.0.1.evil.com", False)),
    ],
)
def test_mode_none_is_for_this_machine_alone_unless_more_is_meant(host: str, is_fine: bool) -> None:
    server = f"server: {{host: '{host}'}}\n"
    if is_fine:
        assert given(f"tenants: {{mode: none}}\n{server}").tenants.mode == "none"
    else:
        assert "in mode none all callers are one" in problem(f"tenants: {{mode: none}}\n{server}")
    assert given(f"tenants: {{mode: none, allow_anyone: true}}\n{server}").tenants.allow_anyone


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        ("", 0o600, "has no key"),
        ("# nothing\n", 0o600, "has no key"),
        (f"{HASH} a", 0o604, "can be read by everybody (mode 0604)"),
        (f"{SECRET} a", 0o600, "key 1: must be given as its SHA-256"),
        (f"{HASH}\n", 0o600, "key 1: its tenant must be"),
        (f"{HASH} a b\n", 0o600, "key 1: its tenant must be"),
        (f"{HASH} a\n{HASH.upper()} b\n", 0o600, "key 2: is given twice"),
    ],
)
def test_a_file_of_key_hashes_is_judged_at_the_start(content: str, mode: int, complaint: str) -> None:
    file("keys", content, mode)
    found = problem("tenants: {mode: static_keys, keys_file: keys}\n")
    assert found.startswith("config.yaml:3: tenants.keys_file: ")
    assert complaint in found


def test_one_tenant_may_have_several_keys() -> None:
    other = hashlib.sha256(b"other").hexdigest()
    file("keys", f"{HASH} a\n\n{other.upper()}\ta # the next one\n")
    found = TenantSettings(mode="static_keys", keys_file=Path("keys")).read_keys()
    assert found == {bytes.fromhex(HASH): "a", bytes.fromhex(other): "a"}
    assert (
        given(f"tenants: {{mode: static_keys, keys: {{{HASH}: a, {other}: a}}}}\n").tenants.read_keys()
        == found
    )


def test_what_is_said_in_two_places_is_refused() -> None:
    file("a", f"{HASH} a\n")
    assert "tenants.keys and tenants.keys_file are both given" in problem(
        f"tenants: {{mode: static_keys, keys_file: a, keys: {{{HASH}: a}}}}\n"
    )
    file("b", "p" * 32)
    assert "tenants.pepper and tenants.pepper_file are both given" in problem(
        f"tenants: {{pepper: {'q' * 32}, pepper_file: b}}\n"
    )
    file("c", f"one:{KEY}\n")
    assert "credentials.sealing_keys and credentials.sealing_keys_file are both given" in problem(
        f"credentials: {{sealing_keys_file: c, sealing_keys: ['one:{KEY}']}}\n"
    )


def test_the_pepper_comes_from_settings_variable_or_file() -> None:
    assert given("").tenants.read_pepper() is None
    assert given("", BACKBURNER_TENANTS__PEPPER="p" * 32).tenants.read_pepper() == b"p" * 32
    file("pepper", "f" * 32 + "\n")
    assert given("tenants: {pepper_file: pepper}\n").tenants.read_pepper() == b"f" * 32


@pytest.mark.parametrize(
    ("item", "complaint"),
    [
        (SECRET, "key 1: must be an id"),
        (f":{KEY}", "key 1: must be an id"),
        (f"a b:{KEY}", "key 1: must be an id"),
        (f"a:{SECRET}", "key 1: must be 32 bytes in base64"),
        (f"a:{KEY[:-4]}", "key 1: must be 32 bytes in base64"),
        (f"a:{KEY},a:{KEY}", "key 2: its id is given twice"),
    ],
)
def test_a_sealing_key_that_is_none_is_refused_and_not_shown(item: str, complaint: str) -> None:
    found = problem("", BACKBURNER_CREDENTIALS__SEALING_KEYS=item)
    assert complaint in found
    assert KEY[:-4] not in found
    file("keys", item.replace(",", "\n"))
    assert complaint in problem("credentials: {sealing_keys_file: keys}\n")


def test_sealing_keys_keep_their_order() -> None:
    older = base64.b64encode(b"o" * 32).decode()
    expected = {"2027-02": b"k" * 32, "2027-01": b"o" * 32}
    items = f"2027-02:{KEY},2027-01:{older}"
    from_environment = given("", BACKBURNER_CREDENTIALS__SEALING_KEYS=items).credentials
    file("keys", items.replace(",", "  # the one in use\n"))
    for found in (from_environment, CredentialSettings(sealing_keys_file=Path("keys"))):
        assert list(found.read_sealing_keys().items()) == list(expected.items())
        assert KEY not in repr(found)


def _pem(key: Any) -> bytes:
    found: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "must hold 1 to 32 public keys"),
        (b"nothing", "must hold 1 to 32 public keys"),
        (b"{}", "is neither PEM nor a JWK set"),
        (b'{"keys": []}', "must hold 1 to 32 public keys"),
        (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "no symmetric and no private ones"),
        (
            b'{"keys": [{"kty": "RSA", "n": "AQ", "e": "AQAB", "d": "AQ"}]}',
            "no symmetric and no private ones",
        ),
        (b'{"keys": [{"kty": "RSA"}]}', "has a public key that cannot be read"),
        (
            b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "has a public key that cannot be read",
        ),
        (
            rsa.generate_private_key(65537, 2048).private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            ),
            "must hold public keys only",
        ),
        (_pem(rsa.generate_private_key(65537, 1024)), "has an RSA key of fewer than 2048 bits"),
        (_pem(ec.generate_private_key(ec.SECP224R1())), "has a public key of a kind that signs no token"),
    ],
)
def test_a_file_of_public_keys_is_judged_at_the_start(content: bytes, complaint: str) -> None:
    file("issuer", content)
    found = problem("tenants: {mode: jwt, jwt_keys_file: issuer, jwt_issuer: i, jwt_audience: a}\n")
    assert found.startswith("config.yaml:3: tenants.jwt_keys_file: ")
    assert complaint in found
