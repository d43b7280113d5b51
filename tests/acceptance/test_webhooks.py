"""Webhooks between real processes: what receivers get, and that the official clients accept it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from openai import InvalidWebhookSignatureError
from standardwebhooks import Webhook

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import ROOT, Gateway, within
from tests.acceptance.receivers import Answer, Receiver
from tests.acceptance.replay import ReplayServer, json_answer, replay

ASK = {"model": "tiny", "input": "Count to 5.", "background": True}
OLD = f"whsec_{base64.b64encode(b'o' * 32).decode()}"
NEW = f"whsec_{base64.b64encode(b'n' * 32).decode()}"
SOON = {"BACKBURNER_WEBHOOKS__RETRY_DELAYS_S": "0.2"}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as one:
        yield one


def told(name: str, receiver: Receiver | str, *secrets: str, **more: str) -> dict[str, object]:
    """The settings of an endpoint."""
    prefix = f"BACKBURNER_WEBHOOKS__ENDPOINTS__{name.upper()}__"
    url = receiver if isinstance(receiver, str) else receiver.url
    fields = {"URL": url, "SECRETS": ",".join(secrets or (OLD,)), **more}
    return {f"{prefix}{key}": value for key, value in fields.items()}


async def created(gateway: Gateway, **more: Any) -> str:
    answer = await gateway.call("POST", "/responses", {**ASK, **more})
    assert answer.status == 200, answer.body
    found: str = answer.json()["id"]
    return found


async def delivered(gateway: Gateway, response_id: str) -> None:
    """The event was taken, and is not to be sent again."""
    await gateway.line(event="webhook", id=response_id, to="delivered")


async def test_every_end_of_a_response_is_told_and_the_official_client_unwraps_it(
    start_gateway: StartGateway, replay_server: ReplayServer, receiver: Receiver
) -> None:
    gateway = await start_gateway(**told("x", receiver))
    completed = await created(gateway)
    await gateway.ended(completed)
    replay_server.script(replay("vllm/responses-max-output-tokens-stream"))
    incomplete = await created(gateway)
    await gateway.ended(incomplete)
    replay_server.script(json_answer({"error": {"message": "no"}}, 400))
    failed = await created(gateway)
    await gateway.ended(failed)
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    cancelled = await created(gateway)
    await within(held.held.wait())
    for _ in range(2):
        assert (await gateway.call("POST", f"/responses/{cancelled}/cancel")).status == 200
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    deleted = await created(gateway)
    await within(held.held.wait())
    assert (await gateway.call("DELETE", f"/responses/{deleted}")).status == 200
    for response_id in (completed, incomplete, failed, cancelled, deleted):
        await delivered(gateway, response_id)
    events = {got.response_id: got.unwrapped(OLD) for got in receiver.received}
    assert len(receiver.received) == len({got.webhook_id for got in receiver.received}) == 5
    assert {response_id: event.type for response_id, event in events.items()} == {
        completed: "response.completed",
        incomplete: "response.incomplete",
        failed: "response.failed",
        cancelled: "response.cancelled",
        deleted: "response.cancelled",
    }
    final = (await gateway.call("GET", f"/responses/{completed}")).json()
    assert abs(events[completed].created_at - final["completed_at"]) <= 1
    assert await gateway.metric('backburner_webhook_deliveries_total{endpoint="x",outcome="delivered"}') == 5


async def test_an_endpoint_is_told_what_it_asks_for_only(
    start_gateway: StartGateway, receiver: Receiver
) -> None:
    pepper = {"BACKBURNER_TENANTS__PEPPER": "p" * 32}
    async with Receiver() as other, Receiver() as mine:
        gateway = await start_gateway(
            **pepper,
            **told("x", receiver, EVENTS="response.failed"),
            **told("y", other, TENANTS="00000000"),
            **told("z", receiver, NEW),
        )
        response_id = await created(gateway)
        await delivered(gateway, response_id)
        assert [got.unwrapped(NEW).data.id for got in receiver.received] == [response_id]
        tenant = (await gateway.line(id=response_id, to="queued"))["tenant"]
        gateway = await start_gateway(
            **pepper, **told("y", other, TENANTS="00000000"), **told("z", mine, TENANTS=f"11111111,{tenant}")
        )
        response_id = await created(gateway)
        await delivered(gateway, response_id)
        assert [got.response_id for got in mine.received] == [response_id]
        assert other.received == []


async def test_an_endpoint_is_told_of_tenants_by_name_where_they_have_names(
    start_gateway: StartGateway, receiver: Receiver, tmp_path: Path
) -> None:
    keys = {name: f"sk-of-{name}-0123456789" for name in ("search", "sales")}
    file = tmp_path / "keys"
    file.write_text(
        "".join(f"{hashlib.sha256(key.encode()).hexdigest()} {name}\n" for name, key in keys.items())
    )
    file.chmod(0o600)
    gateway = await start_gateway(
        **told("x", receiver, TENANTS="sales,others"),
        BACKBURNER_TENANTS__MODE="static_keys",
        BACKBURNER_TENANTS__KEYS_FILE=file,
    )
    ids = {}
    for name, key in keys.items():
        ids[name] = (await gateway.call("POST", "/responses", ASK, key=key)).json()["id"]
        await gateway.log_of_end(ids[name])
    await delivered(gateway, ids["sales"])
    assert [got.response_id for got in receiver.received] == [ids["sales"]]


async def test_an_event_is_told_again_until_it_is_taken_with_one_id(
    start_gateway: StartGateway, receiver: Receiver
) -> None:
    async with Receiver() as elsewhere:
        receiver.answers = [
            Answer(500),
            Answer(307, {"Location": elsewhere.url}),
            Answer(200, hold=asyncio.Event()),
            Answer(404),
        ]
        gateway = await start_gateway(**told("x", receiver), **SOON, BACKBURNER_WEBHOOKS__TIMEOUT_S="0.5")
        response_id = await created(gateway)
        await delivered(gateway, response_id)
        assert elsewhere.received == []
    assert len(receiver.received) == 5
    assert len({got.webhook_id for got in receiver.received}) == 1
    assert len({got.body for got in receiver.received}) == 1
    for got in receiver.received:
        got.unwrapped(OLD)
    reasons = [line["reason"] for line in gateway.lines if line["event"] == "webhook"]
    assert reasons == ["http_500", "http_307", "http_200"], "after three it is down, and that is one line"
    states = [line for line in gateway.lines if line["event"] == "webhook_endpoint"]
    assert [(line["to"], line.get("reason")) for line in states] == [("down", "timeout"), ("up", None)]


async def test_an_event_survives_kill_9_at_any_time_after_the_end(
    start_gateway: StartGateway, replay_server: ReplayServer, receiver: Receiver
) -> None:
    receiver.answers = [Answer(hold=asyncio.Event())]
    gateway = await start_gateway(**told("x", receiver))
    response_id = await created(gateway)
    (first,) = await receiver.attempts()
    await gateway.kill9()
    await gateway.restart()
    await delivered(gateway, response_id)
    assert [got.webhook_id for got in receiver.received] == [first.webhook_id] * 2
    assert receiver.received[1].unwrapped(OLD).data.id == response_id


async def test_a_deleted_response_is_told_of_all_the_same(
    start_gateway: StartGateway, receiver: Receiver
) -> None:
    receiver.answers = [Answer(500)]
    gateway = await start_gateway(**told("x", receiver), **SOON)
    response_id = await created(gateway)
    await receiver.attempts()
    assert (await gateway.call("DELETE", f"/responses/{response_id}")).status == 200
    await delivered(gateway, response_id)
    assert {got.unwrapped(OLD).type for got in receiver.received} == {"response.completed"}


async def test_a_secret_is_changed_without_a_pause(start_gateway: StartGateway, receiver: Receiver) -> None:
    for secrets, accepted, refused in (
        ((OLD,), (OLD,), (NEW,)),
        ((NEW, OLD), (OLD, NEW), ()),
        ((NEW,), (NEW,), (OLD,)),
    ):
        gateway = await start_gateway(**told("x", receiver, *secrets))
        await delivered(gateway, await created(gateway))
        await gateway.stop()
        got = receiver.received[-1]
        for secret in accepted:
            assert got.unwrapped(secret).type == "response.completed"
            Webhook(secret).verify(got.body, dict(got.headers))
        for secret in refused:
            with pytest.raises(InvalidWebhookSignatureError):
                got.unwrapped(secret)


async def test_a_dead_endpoint_holds_up_no_other(start_gateway: StartGateway, receiver: Receiver) -> None:
    async with Receiver() as dead:
        dead.default = Answer(hold=asyncio.Event())
        gateway = await start_gateway(**told("x", receiver), **told("dead", dead))
        ids = [await created(gateway) for _ in range(20)]
        for response_id in ids:
            await delivered(gateway, response_id)
        assert {got.response_id for got in receiver.received} == set(ids)
        assert len(dead.received) == 8  # concurrency_max
        assert await gateway.metric('backburner_webhook_waiting{endpoint="dead"}') == 20
        gateway.send(signal.SIGTERM)
        dead.default = Answer()
        for hold in dead.holds:
            hold.set()
        assert await gateway.exit_status() == 0


async def test_sigterm_waits_for_the_attempt_that_is_under_way(
    start_gateway: StartGateway, receiver: Receiver
) -> None:
    hold = asyncio.Event()
    receiver.answers = [Answer(hold=hold)]
    gateway = await start_gateway(**told("x", receiver))
    response_id = await created(gateway)
    await receiver.attempts()
    gateway.send(signal.SIGTERM)
    await gateway.line(event="draining")
    hold.set()
    assert await gateway.exit_status() == 0
    assert [line["to"] for line in gateway.lines if line["event"] == "webhook"] == ["delivered"]
    await gateway.restart()
    await delivered(gateway, await created(gateway))
    assert [got.response_id for got in receiver.received].count(response_id) == 1


# The operator


async def command(gateway: Gateway, *flags: str) -> tuple[int, str, str]:
    """`backburner webhooks`: exit status, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "webhooks", "--admin-port", gateway.admin.rpartition(":")[2]),
        *flags,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await within(process.communicate())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_410_disables_an_endpoint_and_a_command_shows_and_enables_it(
    start_gateway: StartGateway, receiver: Receiver
) -> None:
    receiver.default = Answer(410)
    gateway = await start_gateway(**told("x", receiver), **SOON)
    first = await created(gateway)
    await gateway.line(event="webhook_endpoint", endpoint="x", to="disabled")
    second = await created(gateway)
    await gateway.ended(second)
    await gateway.kill9()
    await gateway.restart()
    await gateway.ended(await created(gateway))
    await asyncio.sleep(1)  # some looks for what is due
    assert len(receiver.received) == 1
    status, out, _ = await command(gateway)
    assert status == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["ENDPOINT", "STATE", "WAITING", "OLDEST", "LAST", "FAILURE", "ADDRESS"]
    assert (lines[1][:2], lines[1][-1]) == (["x", "disabled"], receiver.url.removesuffix("/hook"))
    assert lines[1][5] == "3"
    assert lines[4][:6] == [first, "x", "response.completed", "1", "http_410", "now"]
    assert await gateway.metric('backburner_webhook_disabled{endpoint="x"}') == 1
    status, out, err = await command(gateway, "--retry", first)
    assert (status, out) == (1, "")
    assert "x answered 410 and is disabled; enable it first (backburner webhooks --enable x)" in err
    receiver.default = Answer()
    assert await command(gateway, "--enable", "y") == (
        1, "", f"backburner: {gateway.admin}/webhooks: no endpoint of this name\n"
    )  # fmt: skip
    assert (await command(gateway, "--enable", "x"))[0] == 0
    await delivered(gateway, first)
    await delivered(gateway, second)
    assert "told" in (await command(gateway))[1]


async def test_a_receiver_that_is_down_is_shown_to_be_so_until_it_takes_something(
    start_gateway: StartGateway, receiver: Receiver
) -> None:
    receiver.default = Answer(503)
    gateway = await start_gateway(
        **told("x", receiver),
        BACKBURNER_WEBHOOKS__RETRY_DELAYS_S="0.2,3600",
        BACKBURNER_WEBHOOKS__CONCURRENCY_MAX="1",
    )
    ids = [await created(gateway) for _ in range(5)]
    await gateway.line(event="webhook_endpoint", endpoint="x", to="down", reason="http_503")
    assert await gateway.metric('backburner_webhook_down{endpoint="x"}') == 1
    state = (await command(gateway))[1].splitlines()[1].split()
    assert state[:3] == ["x", "down", "for"]
    await receiver.attempts(4)  # the next one is an hour away
    receiver.default = Answer()
    assert (await command(gateway, "--retry", ids[-1]))[0] == 0
    await gateway.line(event="webhook_endpoint", endpoint="x", to="up")
    for response_id in ids[-2:]:
        await delivered(gateway, response_id)
    assert receiver.received[4].response_id == ids[-1]
    assert await gateway.metric('backburner_webhook_down{endpoint="x"}') == 0


async def test_another_secret_enables_an_endpoint(start_gateway: StartGateway, receiver: Receiver) -> None:
    receiver.answers = [Answer(410)]
    gateway = await start_gateway(**told("x", receiver))
    response_id = await created(gateway)
    await gateway.line(event="webhook_endpoint", endpoint="x", to="disabled")
    await gateway.stop()
    again = Gateway(gateway.upstream, gateway.database, **told("x", receiver, NEW))
    try:
        await again.start()
        await delivered(again, response_id)
    finally:
        await again.close()
    assert receiver.received[-1].unwrapped(NEW).data.id == response_id


async def test_an_event_that_waits_can_be_tried_again_at_once(
    start_gateway: StartGateway, receiver: Receiver
) -> None:
    receiver.answers = [Answer(500)]
    gateway = await start_gateway(**told("x", receiver), BACKBURNER_WEBHOOKS__RETRY_DELAYS_S="3600")
    response_id = await created(gateway)
    await gateway.line(event="webhook", id=response_id, to="waiting")
    _, out, _ = await command(gateway)
    assert f"{response_id}  x         response.completed  1         http_500      in" in out
    status, out, _ = await command(gateway, "--retry", response_id)
    assert (status, out) == (0, f"{response_id}: tried again now, for 1 receiver(s)\n")
    await delivered(gateway, response_id)
    assert (await command(gateway, "--retry", response_id))[0] == 1


async def test_the_admin_port_changes_nothing_for_a_page_in_a_browser(
    start_gateway: StartGateway, receiver: Receiver
) -> None:
    gateway = await start_gateway(**told("x", receiver))
    url = f"{gateway.admin}/webhooks"
    for body, kind, status in (
        (b'{"enable": "x"}', "text/plain", 415),
        (b'{"enable": "x"}', "application/x-www-form-urlencoded", 415),
        (b'{"enable": "x", "retry": "y"}', "application/json", 400),
        (b'{"enable": 1}', "application/json", 400),
        (b"[", "application/json", 400),
        (b" " * 5000, "application/json", 400),
        (b'{"enable": "no such"}', "application/json", 404),
    ):
        async with gateway.http.post(url, data=body, headers={"Content-Type": kind}) as answer:
            assert answer.status == status, body
    async with gateway.http.delete(url) as answer:
        assert answer.status == 405


async def test_no_secret_and_no_url_of_a_receiver_is_told_to_anybody(
    start_gateway: StartGateway, receiver: Receiver
) -> None:
    receiver.answers = [Answer(500, body=b"canary-answer")]
    user = receiver.url.replace("http://", "http://canary-user:canary-password@").replace(
        "hook", "canary-path"
    )
    gateway = await start_gateway(**told("x", f"{user}?token=canary-query"), **SOON)
    response_id = await created(gateway)
    await delivered(gateway, response_id)
    first = receiver.received[0]
    assert first.path == "/canary-path?token=canary-query"
    assert first.headers["authorization"].startswith("Basic ")
    said = [bytes(gateway.stderr)]
    for path in ("/metrics", "/readyz", "/webhooks"):
        async with gateway.http.get(f"{gateway.admin}{path}") as answer:
            said.append(await answer.read())
    said.append("".join((await command(gateway))[1:]).encode())
    said += [path.read_bytes() for path in gateway.database.parent.glob(f"{gateway.database.name}*")]
    for text in said:
        assert b"canary" not in text
        assert OLD.removeprefix("whsec_").encode() not in text


# URLs of callers

HOOKS = {"BACKBURNER_REQUEST_WEBHOOKS__METADATA_KEY": "hook", "BACKBURNER_REQUEST_WEBHOOKS__SECRETS": NEW}


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


def tls_for(authority: trustme.CA, address: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(address).configure_cert(context)
    return context


async def test_a_callers_own_url_is_told_where_it_may_lead(
    start_gateway: StartGateway, tmp_path: Path, authority: trustme.CA
) -> None:
    address = "127.83.12.7"  # of no other test: the port is not free to choose
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with Receiver(host=address, port=8443, tls=tls_for(authority, address)) as receiver:
        hook = {"hook": receiver.url}
        gateway = await start_gateway(
            **HOOKS,
            SSL_CERT_FILE=tmp_path / "ca.pem",
            BACKBURNER_WEBHOOKS__ALLOWED_NETWORKS=f"{address}/32",
        )
        told_id = await created(gateway, metadata=hook)
        await delivered(gateway, told_id)
        silent_id = await created(gateway)
        await gateway.ended(silent_id)
        await gateway.stop()
        assert [got.unwrapped(NEW).data.id for got in receiver.received] == [told_id]
        gateway = await start_gateway(**HOOKS, SSL_CERT_FILE=tmp_path / "ca.pem")
        denied_id = await created(gateway, metadata=hook)
        line = await gateway.line(event="webhook", id=denied_id, to="given_up")
        assert (line["endpoint"], line["reason"]) == ("@callers", "address_denied")
        assert address not in gateway.stderr.decode()
        assert len(receiver.received) == 1
        refused = await gateway.call("POST", "/responses", {**ASK, "metadata": {"hook": "http://a.test/"}})
        assert (refused.status, refused.error["param"]) == (400, "metadata.hook")


async def test_callers_name_no_url_unless_the_settings_let_them(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    response_id = await created(gateway, metadata={"hook": "http://127.0.0.1:1/"})
    final = await gateway.ended(response_id)
    assert final["metadata"] == {"hook": "http://127.0.0.1:1/"}
    await asyncio.sleep(0.6)  # some looks for what is due
    assert [line for line in gateway.lines if line["event"] == "webhook"] == []
