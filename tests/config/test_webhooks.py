"""The settings of webhooks: receivers by name, what signs, and that no secret and no URL is told."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from gateway.config import ConfigError, Settings, load, load_with_origins

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
NEW = f"whsec_{base64.b64encode(b'n' * 24).decode()}"
OLD = f"whsec_{base64.b64encode(b'o' * 64).decode()}"
HIDDEN = "hidden-part"
URL = f"https://hooks.test/{HIDDEN}?token={HIDDEN}"
UPSTREAM = {"BACKBURNER_UPSTREAM__URL": "http://model:8000/v1"}
ONE = f"webhooks:\n  endpoints:\n    billing:\n      url: {URL}\n      secrets: [{NEW}]\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("config.yaml")


def loaded(text: str, environ: Mapping[str, str] = UPSTREAM) -> Settings:
    Path("config.yaml").write_text(text)
    return load({}, environ=environ, file=Path("config.yaml"))


def problems(text: str, environ: Mapping[str, str] = UPSTREAM) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(text, environ)
    for secret in (NEW, OLD, HIDDEN):
        assert secret not in str(caught.value)
    return caught.value.problems


def test_an_endpoint_needs_a_url_and_a_secret_only(file: Path) -> None:
    (endpoint,) = loaded(ONE).webhooks.endpoints.values()
    assert endpoint.url.get_secret_value() == URL
    assert endpoint.signing_secrets == (NEW,)
    assert set(endpoint.events) == {
        f"response.{end}" for end in ("completed", "failed", "incomplete", "cancelled")
    }
    assert endpoint.tenants == ()


def test_secrets_come_from_values_files_and_variables_at_once(file: Path, tmp_path: Path) -> None:
    (tmp_path / "one").write_text(f"{OLD}\n")
    (tmp_path / "one").chmod(0o600)
    text = f"{ONE}      secret_files: [{tmp_path / 'one'}]\n      secret_envs: [HOOK]\n"
    (endpoint,) = loaded(text, {**UPSTREAM, "HOOK": NEW}).webhooks.endpoints.values()
    assert endpoint.signing_secrets == (NEW, OLD, NEW)


def test_no_secret_and_no_url_is_in_what_settings_print(file: Path) -> None:
    settings = loaded(ONE, {**UPSTREAM, "BACKBURNER_REQUEST_WEBHOOKS__SECRETS": OLD})
    assert settings.request_webhooks.signing_secrets == (OLD,)
    for text in (repr(settings), settings.model_dump_json()):
        assert not any(secret in text for secret in (NEW, OLD, HIDDEN))


def test_endpoints_can_come_from_the_environment(file: Path) -> None:
    environ = {
        **UPSTREAM,
        "BACKBURNER_WEBHOOKS__ENDPOINTS__BILLING__EVENTS": "response.failed,response.cancelled",
        "BACKBURNER_WEBHOOKS__ENDPOINTS__MORE__URL": "http://more.test",
        "BACKBURNER_WEBHOOKS__ENDPOINTS__MORE__SECRET_ENVS": "HOOK",
        "BACKBURNER_WEBHOOKS__ALLOWED_NETWORKS": "10.0.0.0/8,fd00::/8",
        "BACKBURNER_WEBHOOKS__RETRY_DELAYS_S": "1,2.5",
        "HOOK": OLD,
    }
    file.write_text(ONE)
    settings, origins = load_with_origins({}, environ=environ, file=file)
    endpoints = settings.webhooks.endpoints
    assert list(endpoints) == ["billing", "more"]
    assert endpoints["billing"].events == ("response.failed", "response.cancelled")
    assert endpoints["more"].signing_secrets == (OLD,)
    assert settings.webhooks.retry_delays_s == (1, 2.5)
    assert settings.webhooks.allowed_networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert origins["webhooks.endpoints.billing.url"] == "config.yaml:4"
    assert origins["webhooks.endpoints.more.url"] == "environment BACKBURNER_WEBHOOKS__ENDPOINTS__MORE__URL"


def of_bytes(size: int) -> str:
    return f"whsec_{base64.b64encode(b'x' * size).decode()}"


A_SECRET = ".secrets: item 1: must be whsec_ and the base64 of 24 to 64 random bytes"
A_URL = ".url: must be an http:// or https:// URL with a host, and without a fragment"


@pytest.mark.parametrize(
    ("lines", "line", "complaint"),
    [
        ([f"secrets: [{NEW}]", "url: ftp://x"], 5, A_URL),
        ([f"secrets: [{NEW}]", f"url: {HIDDEN}"], 5, A_URL),
        ([f"secrets: [{NEW}]", f"url: 'https://a/#{HIDDEN}'"], 5, A_URL),
        ([f"secrets: [{NEW}]", "url: 'https://a/ b'"], 5, A_URL),
        ([f"secrets: [{NEW}]"], 3, ".url is required: where its events are sent"),
        (["url: http://a"], 3, " has no secret to sign with: give secrets, secret_files or secret_envs"),
        (["url: http://a", f"secrets: [{of_bytes(23)}]"], 5, A_SECRET),
        (["url: http://a", f"secrets: [{of_bytes(65)}]"], 5, A_SECRET),
        (["url: http://a", f"secrets: [{NEW[6:]}]"], 5, A_SECRET),
        (["url: http://a", "secrets: ['whsec_?']"], 5, A_SECRET),
        (
            ["url: http://a", "secret_files: [/nowhere]"],
            5,
            ".secret_files: cannot be read: No such file or directory",
        ),
        (
            ["url: http://a", "secret_envs: [NO_SUCH]"],
            5,
            ".secret_envs: names an environment variable that is not set, or is empty",
        ),
        (
            ["url: http://a", f"secrets: [{NEW}]", "events: [response.queued]"],
            6,
            ".events: item 1: Input should be 'response.completed', 'response.failed', 'response.incomplete' "
            "or 'response.cancelled' (got response.queued)",
        ),
        (
            ["url: http://a", f"secrets: [{NEW}]", "tenants: [me]"],
            6,
            ".tenants must be the eight digits that the log has for a tenant: in mode passthrough tenants "
            "have no names",
        ),
        (
            ["url: http://a", f"secrets: [{NEW}]", "tenants: [0a1b2c3d, 0a1b2c3d]"],
            6,
            ".tenants: has an item twice",
        ),
        (["urll: http://a"], 4, ".urll: unknown setting; did you mean 'url'?"),
    ],
)
def test_a_mistake_in_an_endpoint_names_its_line(
    file: Path, lines: list[str], line: int, complaint: str
) -> None:
    text = "".join(f"      {each}\n" for each in lines)
    found = problems(f"webhooks:\n  endpoints:\n    a:\n{text}")
    assert f"config.yaml:{line}: webhooks.endpoints.a{complaint}" in found


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("webhooks: {endpoints: [a]}\n", 1, "webhooks.endpoints: must be a mapping of endpoints by name"),
        (
            "webhooks:\n  endpoints:\n    A: {url: x}\n",
            3,
            "webhooks.endpoints.?: an endpoint's name is up to 40 lower-case letters, digits, - and _, and "
            "begins with a letter or digit",
        ),
        ("webhooks: {timeout_s: 0}\n", 1, "webhooks.timeout_s: Input should be greater than 0 (got 0)"),
        (
            "webhooks: {retry_delays_s: [1, x]}\n",
            1,
            "webhooks.retry_delays_s: item 2: Input should be a valid number, unable to parse string as a "
            "number (got x)",
        ),
        (
            "webhooks: {retry_delays_s: []}\n",
            1,
            "webhooks.retry_delays_s: Tuple should have at least 1 item after validation, not 0",
        ),
        (
            "webhooks: {allowed_networks: [10.0.0.1/8]}\n",
            1,
            "webhooks.allowed_networks: item 1: value is not a valid IPv4 or IPv6 network (got 10.0.0.1/8)",
        ),
        (
            "request_webhooks:\n  metadata_key: hook\n",
            2,
            "request_webhooks.metadata_key is given but no secret to sign with: give secrets, secret_files "
            "or secret_envs",
        ),
    ],
)
def test_a_mistake_beside_the_endpoints_names_its_line(
    file: Path, text: str, line: int, complaint: str
) -> None:
    assert problems(text) == [f"config.yaml:{line}: {complaint}"]


def test_a_variable_of_an_endpoint_that_is_no_setting_is_refused(file: Path) -> None:
    variable = "BACKBURNER_WEBHOOKS__ENDPOINTS__BILLING__URLL"
    meant = variable.removesuffix("L")
    assert problems(ONE, {**UPSTREAM, variable: HIDDEN}) == [
        f"environment {variable}: unknown setting; did you mean '{meant}'?"
    ]
    variable = "BACKBURNER_WEBHOOKS__ENDPOINTS"
    assert problems(ONE, {**UPSTREAM, variable: HIDDEN})[0].startswith(
        f"environment {variable}: unknown setting"
    )


def test_the_endpoint_of_the_example_loads(file: Path, tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    start = text.index("  #endpoints:")
    end = text.index("  # Seconds for one attempt")
    block = re.sub(r"(?m)^  #", "  ", text[start:end])
    for name in ("new", "old"):
        (tmp_path / name).write_text(NEW)
        (tmp_path / name).chmod(0o600)
    text = text[:start] + block.replace("/run/secrets/billing-", f"{tmp_path}/") + text[end:]
    settings: Any = loaded(text, {})
    billing = settings.webhooks.endpoints["billing"]
    assert len(billing.signing_secrets) == 2
    assert billing.tenants == ("0a1b2c3d",)
