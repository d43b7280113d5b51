"""Webhooks: told at least once whatever dies, under one id; and never at an address they must not go to."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import ssl
import time
from collections import defaultdict
from contextlib import AsyncExitStack, suppress
from unittest.mock import patch

import orjson
import trustme
from standardwebhooks import Webhook
from standardwebhooks.exceptions import WebhookVerificationError

from tests.acceptance.receivers import Answer, Received, Receiver
from tests.torture import dialling
from tests.torture.clients import Crowd, Mix
from tests.torture.gateway import Gateway
from tests.torture.journal import Journal
from tests.torture.model import create_body
from tests.torture.told import SECRETS, all_told, endpoint
from tests.torture.trial import Bench, trial
from tests.torture.trials.kills import judge, require_whole

_CLIENTS = 12
_ROTATION = ((0,), (1, 0), (1,), (0, 1))
"""Which of the two secrets sign in one life of the gateway after the other."""


class _Troubled(Receiver):
    """Takes some attempts, and what it does about the others is no success."""

    def __init__(self, elsewhere: str) -> None:
        super().__init__()
        self._elsewhere = elsewhere
        self.taken: set[str] = set()
        self.on_attempt = self._decide

    def _decide(self) -> None:
        fate = random.random()
        if fate < 0.4:
            self.answers = [Answer(random.choice((200, 202, 204)))]
            self.taken.add(self.received[-1].response_id)
        elif fate < 0.6:
            self.answers = [Answer(random.choice((400, 404, 429, 500, 502, 503)))]
        elif fate < 0.8:
            self.answers = [Answer(random.choice((301, 302, 303, 307, 308)), {"Location": self._elsewhere})]
        else:
            self.answers = [Answer(hold=asyncio.Event())]


@trial(
    "T36",
    "kill -9 while events go to receivers that answer 5xx, 3xx, 410 or nothing, and while secrets change",
    pass_mark="every ended response taken by every receiver that takes any; one webhook-id and one body "
    "each; the verifiers accept each secret in force and no other; 410 stops; no redirect followed",
    runs=50,
    short_runs=1,
    quick_runs=1,
    round_s=20,
)
async def tell_and_die(bench: Bench) -> None:
    async with AsyncExitStack() as stack:
        elsewhere = await stack.enter_async_context(Receiver())
        troubled = await stack.enter_async_context(_Troubled(elsewhere.url))
        rotated = await stack.enter_async_context(Receiver())
        gone = await stack.enter_async_context(Receiver())
        gone.default = Answer(410)
        model = await bench.model()
        gateway = await bench.prepared(
            model.url,
            webhooks__retry_delays_s="0.1,0.3",
            webhooks__timeout_s=0.5,
            webhooks__concurrency_max=32,
        )
        gateway.set(
            **endpoint("troubled", troubled, SECRETS[:1]),
            **endpoint("rotated", rotated, [SECRETS[number] for number in _ROTATION[0]]),
            **endpoint("gone", gone, SECRETS[:1]),
        )
        await gateway.start()
        stops = _Stops(bench, gateway, gone)
        mix = Mix(deltas=(1, 12), paces_ms=(0, 2, 10), faults=("", "", "error", "cut"))
        async with Journal(bench.directory / "journal") as notes, Crowd(gateway, notes, _CLIENTS, mix):
            for number in bench.rounds():
                await asyncio.sleep(bench.takeover_s)
                await _until_killed(gateway, rotated)
                stops.look()
                require_whole(bench, gateway, f"kill {number}")
                _verify(bench, rotated, _ROTATION[number % len(_ROTATION)])
                keys = _ROTATION[(number + 1) % len(_ROTATION)]
                gateway.set(**endpoint("rotated", rotated, [SECRETS[key] for key in keys]))
                await gateway.restart()
        stories = await judge(bench, gateway, model, notes)
        waiting = await all_told(bench, gateway, "troubled", "rotated")
        bench.require(waiting["gone"] > 0, "what waits for a disabled endpoint is kept")
        stops.look()
        _verify(bench, rotated, _ROTATION[bench.runs % len(_ROTATION)])
        accepted = {story.id for story in stories}
        for name, taken in (("troubled", troubled.taken), ("rotated", _told(rotated))):
            missing = accepted - taken
            bench.add("accepted and not told", len(missing))
            bench.require(
                not missing, f"{name} was never told of {sorted(missing)[:3]} and {len(missing)} in all"
            )
        bench.require(not elsewhere.received, f"{len(elsewhere.received)} redirects were followed")
        _judge_events(bench, [*troubled.received, *rotated.received, *gone.received])
        bench.figure("ends told", len(_told(rotated)))
        bench.figure("attempts", sum(len(each.received) for each in (troubled, rotated, gone)))


async def _until_killed(gateway: Gateway, receiver: Receiver) -> None:
    """At a random moment, or just as an attempt comes: before it is answered, or before that is stored."""
    await asyncio.sleep(random.uniform(0.2, 1.5))
    if random.random() < 0.5:
        loop, killed = asyncio.get_running_loop(), asyncio.Event()

        def kill() -> None:
            if not killed.is_set():
                killed.set()
                gateway.send(signal.SIGKILL)

        def kill_soon() -> None:
            loop.call_later(random.uniform(0, 0.01), kill)

        receiver.on_attempt = kill_soon
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await killed.wait()
        receiver.on_attempt = lambda: None
    if gateway.is_running:
        gateway.send(signal.SIGKILL)
    await gateway.exit_status()


class _Stops:
    """Whether 410 stops: once the gateway has said that the endpoint is disabled, nothing more comes, also
    not from its next lives. Until it has stored that, a life may send again: as many at once as it may."""

    def __init__(self, bench: Bench, gateway: Gateway, gone: Receiver) -> None:
        self._bench = bench
        self._gateway = gateway
        self._gone = gone
        self._attempts: int | None = None

    def look(self) -> None:
        """Between two lives."""
        if self._attempts is not None:
            later = len(self._gone.received) - self._attempts
            self._bench.add("sent after 410", later)
            self._bench.require(not later, f"{later} attempts came after the endpoint was disabled")
        elif any(line["event"] == "webhook_endpoint" for line in self._gateway.lines):
            self._attempts = len(self._gone.received)


def _verify(bench: Bench, receiver: Receiver, in_force: tuple[int, ...]) -> None:
    """What came in this life, by the standard's own verifier and by the official client."""
    for got in receiver.received[bench.result.figures.get("verified", 0) :]:
        accepted = [number for number, secret in enumerate(SECRETS) if _is_accepted(got, secret)]
        bench.require(set(accepted) == set(in_force), f"{got.webhook_id}: {accepted}, not {in_force}")
        event = got.unwrapped(SECRETS[in_force[0]])
        bench.require(event.data.id == got.response_id, f"{got.webhook_id} unwraps to {event}")
        bench.add("verified")


def _is_accepted(got: Received, secret: str) -> bool:
    try:
        Webhook(secret).verify(got.body, dict(got.headers))
    except WebhookVerificationError:
        return False
    return True


def _told(receiver: Receiver) -> set[str]:
    return {got.response_id for got in receiver.received}


def _judge_events(bench: Bench, attempts: list[Received]) -> None:
    """Every attempt at one event has one id and one body, whoever it is for."""
    bodies: dict[str, set[bytes]] = defaultdict(set)
    ids: dict[str, set[str]] = defaultdict(set)
    for got in attempts:
        bodies[got.response_id].add(got.body)
        ids[got.response_id].add(got.webhook_id)
    for response_id in bodies:
        bench.require(len(ids[response_id]) == 1, f"{response_id}: ids {ids[response_id]}")
        bench.require(len(bodies[response_id]) == 1, f"{response_id}: {len(bodies[response_id])} bodies")
    bench.add("ids beyond one for each", sum(len(each) - 1 for each in ids.values()))


# -- where URLs of callers lead

_HOSTS = (
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0x7f.0.0.1", "0177.0.0.1",
    "017700000001", "0177.1", "0", "0.0.0.0", "0x0", "localhost", "LOCALHOST", "localhost.", "127.0.0.1.",
    "%31%32%37.0.0.1", "[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[2001:0:7f00:1::]", "[fe80::1]",
    "[fc00::1]", "[fd00:ec2::254]", "[fec0::1]", "[ff02::1]", "10.0.0.1", "172.16.0.1", "192.168.0.1",
    "169.254.169.254", "0xa9fea9fe", "2852039166", "100.64.0.1", "100.100.100.200", "192.0.0.192",
    "192.88.99.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
)  # fmt: skip
_REBOUND = (
    "127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
    "2001:0:7f00:1::", "fe80::1", "100.64.0.1",
)  # fmt: skip
_REDIRECTS = (301, 302, 303, 307, 308)
_FORGOTTEN_S = 11
"""Longer than the gateway remembers where a name led: the attempt after it looks it up anew."""

_SETTLED_S = 30.0


@trial(
    "T35",
    f"callers' URLs with {len(_HOSTS)} spellings of addresses that are not public, names that lead elsewhere "
    f"at the second look-up ({len(_REBOUND)} ways), and redirects ({len(_REDIRECTS)} kinds)",
    pass_mark="0 dials to a denied address, counted at the sockets of the gateway's process",
    runs=20,
    short_runs=1,
    round_s=60,
)
async def lead_astray(bench: Bench) -> None:
    authority = trustme.CA()
    certificate = bench.directory / "ca.pem"
    authority.cert_pem.write_to_path(str(certificate))
    model = await bench.model()
    for number in bench.rounds():
        allowed = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(2, 254)}"
        async with Receiver(host=allowed, port=8443, tls=_tls(authority, allowed)) as receiver:
            with patch.dict(os.environ, SSL_CERT_FILE=str(certificate)):
                await _astray(bench, model.url, number, receiver, allowed)


async def _astray(bench: Bench, model_url: str, number: int, receiver: Receiver, allowed: str) -> None:
    """One round, with a gateway of its own: what its names lead to is for one process."""
    names = bench.directory / f"names-{number}"
    rebound = {f"rebound-{each}.test": [[allowed], [where]] for each, where in enumerate(_REBOUND)}
    mixed = {"mixed.test": [["127.0.0.1", allowed, "10.0.0.1", "::1"]]}
    names.write_bytes(orjson.dumps(rebound | mixed))
    dials = bench.directory / f"dials-{number}"
    gateway = await bench.prepared(
        model_url,
        request_webhooks__metadata_key="hook",
        request_webhooks__secrets=SECRETS[0],
        webhooks__allowed_networks=f"{allowed}/32",
        webhooks__retry_delays_s=f"0.5,{_FORGOTTEN_S}",
        webhooks__concurrency_max=64,
    )
    gateway.next_start("--dials", str(dials), "--names", str(names))
    await gateway.start()
    port = random.choice(("", ":443", ":8443"))
    await _tried(bench, gateway, [f"https://{host}{port}/x" for host in _HOSTS], {"waiting", "given_up"})
    redirects = [
        Answer(status, {"Location": where}) for status in _REDIRECTS for where in _targets(model_url)
    ]
    turns = itertools.cycle(redirects)  # attempts made again get one, too

    def redirect() -> None:
        receiver.answers = [next(turns)]

    receiver.on_attempt = redirect
    await _tried(bench, gateway, [receiver.url] * len(redirects), {"waiting"})
    await _tried(bench, gateway, ["https://mixed.test:8443/x"], {"waiting", "given_up"})
    await _tried(bench, gateway, [f"https://{name}:8443/x" for name in rebound], {"given_up"})
    found = dialling.dials(dials)
    model_port = int(model_url.rpartition(":")[2].partition("/")[0])
    denied = [dial for dial in found if dial not in ((allowed, 8443), ("127.0.0.1", model_port))]
    bench.add("dials to denied", len(denied))
    bench.require(not denied, f"dialled {sorted(set(denied))}")
    control = [dial for dial in found if dial == (allowed, 8443)]
    bench.require(
        len(control) >= len(redirects), f"only {len(control)} dials were seen: is anybody watching?"
    )
    bench.add("allowed dials seen", len(control))
    await gateway.kill9()


def _targets(model_url: str) -> tuple[str, ...]:
    return (
        model_url,
        "https://127.0.0.1:8443/x",
        "http://169.254.169.254/latest/meta-data/",
        "//127.0.0.1/x",
    )


async def _tried(bench: Bench, gateway: Gateway, urls: list[str], ends: set[str]) -> None:
    """Responses that name these URLs have ended, and what came of each is one of `ends`."""
    ids = []
    for number, url in enumerate(urls):
        body = create_body(f"astray.{number}", stream=False, deltas=1, pace_ms=0)
        answer = await gateway.call(
            "POST", "/responses", {**body, "metadata": {**body["metadata"], "hook": url}}
        )
        bench.add("URLs", 1)
        if answer.status == 200:
            ids.append(answer.json()["id"])
        else:
            bench.require(answer.json()["error"]["code"] == "invalid_webhook_url", f"{url}: {answer.body!r}")
            bench.add("refused at once", 1)
    missing = set(ids)
    deadline = time.monotonic() + _SETTLED_S
    while missing and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        told = [line for line in gateway.lines if line["event"] == "webhook"]
        missing -= {line["id"] for line in told if line["to"] in ends}
    bench.require(not missing, f"{len(missing)} of {len(ids)} did not come to {ends}, e.g. {urls[0]}")


def _tls(authority: trustme.CA, address: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(address).configure_cert(context)
    return context
