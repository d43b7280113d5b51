"""Events as the official client unwraps them, and the URLs that callers may name."""

from __future__ import annotations

import base64
import time

import pytest
from openai import InvalidWebhookSignatureError, OpenAI
from standardwebhooks import Webhook

from gateway.wire import webhooks
from gateway.wire.errors import Refusal

ID = f"resp_{'0a' * 24}"
SECRETS = [f"whsec_{base64.b64encode(bytes([number]) * 24).decode()}" for number in range(3)]


def client(secret: str) -> OpenAI:
    return OpenAI(api_key="none", webhook_secret=secret)


@pytest.mark.parametrize("status", ["completed", "failed", "incomplete", "cancelled"])
def test_the_official_client_unwraps_every_event(status: str) -> None:
    body = webhooks.event(ID, status, 1_800_000_000)
    headers = webhooks.signed_headers(ID, body, SECRETS[:1], sent_at_s=int(time.time()))
    event = client(SECRETS[0]).webhooks.unwrap(body, headers)
    assert type(event).__name__ == f"Response{status.capitalize()}WebhookEvent"
    assert event.model_dump() == {
        "id": f"evt_{'0a' * 24}",
        "object": "event",
        "type": f"response.{status}",
        "created_at": 1_800_000_000,
        "data": {"id": ID},
    }


def test_a_receiver_with_any_of_the_secrets_accepts_it_and_one_with_another_does_not() -> None:
    body = webhooks.event(ID, "completed", 1_800_000_000)
    headers = webhooks.signed_headers(ID, body, SECRETS[:2], sent_at_s=int(time.time()))
    assert headers["webhook-signature"].count("v1,") == 2
    for secret in SECRETS[:2]:
        client(secret).webhooks.verify_signature(body, headers)
        Webhook(secret).verify(body, headers)
    with pytest.raises(InvalidWebhookSignatureError):
        client(SECRETS[2]).webhooks.verify_signature(body, headers)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "body"])
def test_whatever_is_changed_on_the_way_is_noticed(name: str) -> None:
    body = webhooks.event(ID, "completed", 1_800_000_000)
    now_s = int(time.time())
    headers = webhooks.signed_headers(ID, body, SECRETS[:1], sent_at_s=now_s)
    changed = {"webhook-id": "wh_other", "webhook-timestamp": str(now_s - 1), "body": None}[name]
    if changed is None:
        body = body.replace(b"completed", b"cancelled")
    else:
        headers[name] = changed
    with pytest.raises(InvalidWebhookSignatureError):
        client(SECRETS[0]).webhooks.unwrap(body, headers)


def test_an_attempt_made_later_has_the_same_id_and_a_time_of_its_own() -> None:
    body = webhooks.event(ID, "failed", 1_800_000_000)
    first, second = (webhooks.signed_headers(ID, body, SECRETS, sent_at_s=at) for at in (100, 4000))
    assert first["webhook-id"] == second["webhook-id"] == webhooks.delivery_id(ID)
    assert (first["webhook-timestamp"], second["webhook-timestamp"]) == ("100", "4000")
    assert first["webhook-signature"] != second["webhook-signature"]
    assert webhooks.event(ID, "failed", 1_800_000_000) == body


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.test",
        "https://hooks.test/a?b=c",
        "https://hooks.test:443/",
        "https://hooks.test:8443/a",
        "HTTPS://Hooks.test/@a",
        "https://[2606:4700::1111]/",
        "https://127.0.0.1/",  # judged when it is dialled
    ],
)
def test_a_url_that_may_be_named_is_taken_as_it_is(url: str) -> None:
    assert webhooks.requested_url({"metadata": {"hook": url}}, "hook") == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.test",
        "http://hooks.test/",
        "ftp://hooks.test/",
        "https://",
        "https:///a",
        "https://hooks.test:80/",
        "https://hooks.test:8080/",
        "https://hooks.test:0/",
        "https://hooks.test:x/",
        "https://user@hooks.test/",
        "https://user:pw@hooks.test/",
        "https://:pw@hooks.test/",
        "https://hooks.test/#a",
        "https://hooks.test/ a",
        "https://hooks.test/\r\nX: y",
        "https://hooks.test\\@other.test/",
        "https://höks.test/",
        "https://[::1",
        "file:///etc/passwd",
        "javascript:alert(1)",
    ],
)
def test_a_url_that_may_not_be_named_is_refused_by_its_field(url: str) -> None:
    with pytest.raises(Refusal) as refused:
        webhooks.requested_url({"metadata": {"hook": url}}, "hook")
    assert (refused.value.param, refused.value.code) == ("metadata.hook", "invalid_webhook_url")
    assert "hooks.test" not in refused.value.message


@pytest.mark.parametrize("body", [{}, {"metadata": None}, {"metadata": {}}, {"metadata": {"other": "x"}}])
def test_a_request_that_names_none_has_none(body: dict[str, object]) -> None:
    assert webhooks.requested_url(body, "hook") is None


def test_settings_that_take_none_leave_the_metadata_alone() -> None:
    assert webhooks.requested_url({"metadata": {"hook": "http://127.0.0.1/"}}, None) is None
