"""The sender of events over real sockets: what counts as taken, and what is never dialled."""

from __future__ import annotations

import asyncio
import base64
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.config import Settings
from gateway.core.job import Status
from gateway.core.webhooks import Attempt, Delivery, Verdict
from gateway.outbound.webhook_sender import HttpWebhookSender
from tests.acceptance.receivers import Answer, Receiver

ID = f"resp_{'0a' * 24}"
SECRET = f"whsec_{base64.b64encode(b's' * 32).decode()}"
OTHER = f"whsec_{base64.b64encode(b'o' * 32).decode()}"

Open = Callable[..., Awaitable[HttpWebhookSender]]


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Opens a sender with an endpoint `a` at a URL, and with URLs of callers allowed."""
    async with AsyncExitStack() as stack:

        async def open_sender(url: str = "http://unused.test", **webhooks: Any) -> HttpWebhookSender:
            endpoint = {"url": url, "secrets": [SECRET]}
            settings = Settings.model_validate(
                {
                    "upstream": {"url": "http://backend.test/v1"},
                    "webhooks": {"endpoints": {"a": endpoint}, **webhooks},
                    "request_webhooks": {"metadata_key": "hook", "secrets": [OTHER]},
                }
            )
            return await HttpWebhookSender.open(settings, stack)

        yield open_sender


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as one:
        yield one


def delivery(url: str | None = None) -> Delivery:
    lane = "a" if url is None else "@caller"
    return Delivery(ID, lane, url, Status.COMPLETED, 1_800_000_000_000, 0, 0, None)


# What is sent, and what the answer means


async def test_an_event_is_sent_once_signed_and_with_nothing_else(opened: Open, receiver: Receiver) -> None:
    sender = await opened(receiver.url + "?token=t")
    assert await sender.send(delivery()) == Attempt(Verdict.TAKEN, "http_200")
    (got,) = receiver.received
    assert got.unwrapped(SECRET).data.id == ID
    assert got.path == "/hook?token=t"
    assert set(got.headers) == {
        "accept", "connection", "content-length", "content-type", "host", "user-agent", "webhook-id",
        "webhook-signature", "webhook-timestamp",
    }  # fmt: skip
    assert got.headers["user-agent"].startswith("Backburner/")


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.TAKEN),
        (202, Verdict.TAKEN),
        (204, Verdict.TAKEN),
        (299, Verdict.TAKEN),
        (304, Verdict.DOWN),
        (400, Verdict.AGAIN),
        (401, Verdict.DOWN),
        (404, Verdict.DOWN),
        (413, Verdict.AGAIN),
        (422, Verdict.AGAIN),
        (429, Verdict.DOWN),
        (410, Verdict.STOP),
        (500, Verdict.DOWN),
        (503, Verdict.DOWN),
    ],
)
async def test_a_status_of_200_to_299_takes_it_and_410_stops_it(
    opened: Open, receiver: Receiver, status: int, verdict: Verdict
) -> None:
    receiver.default = Answer(status)
    sender = await opened(receiver.url)
    assert await sender.send(delivery()) == Attempt(verdict, f"http_{status}")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(opened: Open, receiver: Receiver, status: int) -> None:
    async with Receiver() as elsewhere:
        receiver.default = Answer(status, {"Location": elsewhere.url})
        sender = await opened(receiver.url)
        assert await sender.send(delivery()) == Attempt(Verdict.DOWN, f"http_{status}")
        assert elsewhere.received == []
    assert len(receiver.received) == 1


async def test_every_attempt_has_a_connection_of_its_own_and_brings_no_cookie_back(
    opened: Open, receiver: Receiver
) -> None:
    receiver.default = Answer(500, {"Set-Cookie": "a=b"})
    sender = await opened(receiver.url)
    for _ in range(3):
        await sender.send(delivery())
    assert receiver.connections == 3
    assert not any("cookie" in got.headers for got in receiver.received)


async def test_a_long_answer_is_read_in_part_and_counts_all_the_same(opened: Open) -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"}}")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                sent += 65536
                await writer.drain()
        except ConnectionError:
            writer.close()

    async with await asyncio.start_server(endless, "127.0.0.1", 0) as server:
        sender = await opened(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        assert await sender.send(delivery()) == Attempt(Verdict.TAKEN, "http_200")
    assert sent < 16 * 2**20  # what sockets hold, and no more


async def test_a_receiver_that_is_silent_is_left_after_the_timeout(opened: Open, receiver: Receiver) -> None:
    receiver.default = Answer(hold=asyncio.Event())
    sender = await opened(receiver.url, timeout_s=0.2)
    started = time.monotonic()
    assert await sender.send(delivery()) == Attempt(Verdict.DOWN, "timeout")
    assert 0.1 < time.monotonic() - started < 5


async def test_an_answer_whose_body_never_ends_is_taken_by_its_head(opened: Open) -> None:
    async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}}")
        writer.write(b"HTTP/1.1 204 OK\r\nContent-Length: 5\r\n\r\n".replace(b"204 OK", b"200 OK"))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(stalls, "127.0.0.1", 0) as server:
        sender = await opened(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout_s=0.3)
        assert await sender.send(delivery()) == Attempt(Verdict.TAKEN, "http_200")


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200", b"garbage\r\n\r\n", b"HTTP/1.1 99999 x\r\n\r\n"])
async def test_an_answer_that_is_none_is_no_success(opened: Open, said: bytes) -> None:
    async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}}")
        writer.write(said)
        writer.close()

    async with await asyncio.start_server(talks, "127.0.0.1", 0) as server:
        sender = await opened(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        assert await sender.send(delivery()) == Attempt(Verdict.DOWN, "cut")


async def test_what_is_below_http_has_a_word_each(opened: Open) -> None:
    with socket.socket() as bound:  # and nobody listens
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        sender = await opened(f"http://127.0.0.1:{port}/")
        assert await sender.send(delivery()) == Attempt(Verdict.DOWN, "unreachable")
    sender = await opened("http://nowhere.invalid/")
    assert await sender.send(delivery()) == Attempt(Verdict.DOWN, "unresolved")
    sender = await opened(f"http://{'a' * 70}.test/")
    assert (await sender.send(delivery())).verdict is Verdict.DOWN
    async with Receiver() as plain:
        sender = await opened(plain.url.replace("http:", "https:"))
        assert await sender.send(delivery()) == Attempt(Verdict.DOWN, "tls")


async def test_no_proxy_of_the_environment_is_used(
    opened: Open, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    sender = await opened(receiver.url)
    assert (await sender.send(delivery())).verdict is Verdict.TAKEN


# What is never dialled

_dials: list[Any] = []
_is_watching = threading.Event()


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _is_watching.is_set():
        _dials.append(args[1])


sys.addaudithook(_watch)  # stays for the life of the interpreter


@pytest.fixture
def dials() -> Any:
    """Every address that this process dialled, at the level of sockets."""
    _dials.clear()
    _is_watching.set()
    yield _dials
    _is_watching.clear()


SPELLINGS = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0x7f.0.0.1", "0177.0.0.1",
    "017700000001", "0177.1", "0", "0.0.0.0", "0x0", "localhost", "LOCALHOST", "localhost.",
    "%31%32%37.0.0.1", "①②⑦.⓪.⓪.①", "127。0。0。1", "127.0.0.1.", "[::1]", "[0:0:0:0:0:0:0:1]", "[::]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]",
    "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]", "[fe80::1]",
    "[fe80::1%25lo]", "[fc00::1]", "[fec0::1]", "[ff02::1]", "10.0.0.1", "192.168.0.1", "172.16.0.1",
    "169.254.169.254", "0xa9fea9fe", "2852039166", "100.64.0.1", "192.0.0.192", "224.0.0.1",
    "255.255.255.255", "198.18.0.1", "240.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_spelling_of_a_private_address_is_dialled_for_a_caller(
    opened: Open, dials: list[Any], host: str
) -> None:
    sender = await opened()
    attempt = await sender.send(delivery(f"https://{host}:8443/"))
    assert attempt.verdict is not Verdict.TAKEN
    assert attempt.reason in ("address_denied", "unresolved", "invalid_url")
    assert dials == []


class Names:
    """Stands for a name server: each look-up of a name has the next of its answers, the last one for good."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if (answers := self.answers.get(host)) is None:
            return self._real(host, port, *args, **kwargs)
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [info for address in found for info in self._real(address, port, type=socket.SOCK_STREAM)]


@pytest.mark.parametrize(
    "rebound", ["127.0.0.1", "::1", "10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:127.0.0.1"]
)
async def test_a_name_that_leads_elsewhere_later_is_not_followed_there(
    opened: Open, dials: list[Any], monkeypatch: pytest.MonkeyPatch, rebound: str
) -> None:
    names = Names(monkeypatch)
    names.answers["rebound.test"] = [["127.7.7.7"], [rebound]]
    senders = [await opened(allowed_networks=["127.7.7.7/32"]) for _ in range(2)]  # no cache in common
    first = await senders[0].send(delivery("https://rebound.test:8443/"))
    assert first == Attempt(Verdict.DOWN, "unreachable")
    assert dials == [("127.7.7.7", 8443)]
    second = await senders[1].send(delivery("https://rebound.test:8443/"))
    assert second == Attempt(Verdict.NEVER, "address_denied")
    assert dials == [("127.7.7.7", 8443)]


async def test_of_several_addresses_only_those_that_may_be_are_dialled(
    opened: Open, dials: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch)
    names.answers["both.test"] = [["127.0.0.1", "127.7.7.7", "10.1.1.1"]]
    sender = await opened(allowed_networks=["127.7.7.7/32"])
    attempt = await sender.send(delivery("https://both.test/"))
    assert attempt.verdict is not Verdict.TAKEN
    assert set(dials) == {("127.7.7.7", 443)}


async def test_a_url_of_the_settings_may_lead_anywhere_unless_private_ones_are_denied(
    opened: Open, receiver: Receiver
) -> None:
    assert (await (await opened(receiver.url)).send(delivery())).verdict is Verdict.TAKEN
    sender = await opened(receiver.url, deny_private=True)
    assert await sender.send(delivery()) == Attempt(Verdict.DOWN, "address_denied")
    sender = await opened(receiver.url, deny_private=True, allowed_networks=["127.0.0.0/8"])
    assert (await sender.send(delivery())).verdict is Verdict.TAKEN
    assert len(receiver.received) == 2


async def test_names_whose_servers_do_not_answer_hold_up_no_others(
    opened: Open, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    answer = threading.Event()

    def slow(host: Any, *args: Any, **kwargs: Any) -> Any:
        if str(host).endswith(".slow.test"):
            answer.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    sender = await opened(receiver.url.replace("127.0.0.1", "localhost"), timeout_s=0.5)
    try:
        waiting = [
            asyncio.create_task(sender.send(delivery(f"https://{number}.slow.test/"))) for number in range(40)
        ]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(10):
            assert (await sender.send(delivery())).verdict is Verdict.TAKEN
            assert {attempt.reason for attempt in await asyncio.gather(*waiting)} == {"timeout"}
    finally:
        answer.set()
