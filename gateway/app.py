"""Wiring: builds the rooms from the settings, opens the ports, and closes everything in order."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import uvloop
from aiohttp import http_parser, web
from yarl import URL

from gateway import __version__, loop
from gateway.api.admin.changes import Changes
from gateway.api.admin.page import UiFiles
from gateway.api.admin.roles import Access
from gateway.api.admin.routes import Ops
from gateway.api.admin.v1 import AdminApi
from gateway.api.admin.webhooks import ReceiverRoutes
from gateway.api.http.server import Server
from gateway.api.identity.authenticators import authenticator_of, fingerprint
from gateway.api.identity.callers import Callers
from gateway.api.identity.credential_check import CredentialCheck
from gateway.api.lane.lane import Lane
from gateway.api.passthrough import Passthrough
from gateway.api.responses import Responses
from gateway.api.router import Router
from gateway.api.routing import Routing
from gateway.config import Settings, is_loopback
from gateway.core.job import StoreUnavailable
from gateway.engine.credentials import SealingKeyMissing
from gateway.engine.engine import Engine
from gateway.listeners import BACKLOG, PortUnusable, bound
from gateway.observe import Observer, configure_logging, line
from gateway.observe.tracing import TracerMissing, tracing_of
from gateway.outbound.backends import HttpBackends
from gateway.outbound.webhook_sender import HttpWebhookSender
from gateway.process import (
    calm_collector,
    give_memory_back,
    keep_standard_files,
    raise_file_limit,
    warn_of_few_files,
    watch_loop,
)
from gateway.store.factory import described, open_store
from gateway.store.refused import DatabaseInUse, DatabaseRefused, DatabaseUnreachable
from gateway.wire import openapi

# sysexits.h: what a supervisor can tell apart.
EX_SOFTWARE, EX_TEMPFAIL, EX_CONFIG = 70, 75, 78

_CLOSING_GRACE_S = 3.0
"""Seconds after the drain for the last bytes of answers."""


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit status; a second signal ends the process at once."""
    keep_standard_files()
    configure_logging(
        settings.log.level,
        settings.log.format,
        waiting_bytes_max=settings.log.waiting_bytes_max,
        flush_timeout_s=settings.log.flush_timeout_s,
    )
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        return _refused(
            "aiohttp runs without its C parser, whose strictness the gateway relies on", EX_CONFIG
        )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings))
    except PortUnusable as error:
        return _refused(str(error), EX_TEMPFAIL if error.is_taken else EX_CONFIG)
    except (DatabaseInUse, DatabaseUnreachable, StoreUnavailable) as error:
        return _refused(str(error), EX_TEMPFAIL)
    except (DatabaseRefused, SealingKeyMissing, TracerMissing, OSError) as error:
        return _refused(str(error), EX_CONFIG)


def _refused(reason: str, status: int) -> int:
    line("refused", level=logging.ERROR, reason=reason)
    return status


async def _serve(settings: Settings) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _stop_or_exit, stop, number)
    open_files_max = raise_file_limit()
    store = described(settings.store)
    async with serving(settings) as gateway:
        line(
            "listening",
            version=__version__,
            url=gateway.url,
            admin=gateway.admin_url,
            upstream=[url for one in settings.all_backends.values() for url in one.urls],
            database=store.database,
            durability=settings.store.durability,
            sqlite=store.sqlite,
            open_files_max=open_files_max,
        )
        warn_of_few_files(settings, open_files_max)
        calm_collector()
        ends = (stop, gateway.failed, gateway.asked_to_leave)
        waits = [asyncio.create_task(event.wait()) for event in ends]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        line("draining", timeout_s=settings.server.drain_timeout_s)
    line("stopped")
    return EX_SOFTWARE if gateway.failed.is_set() else 0


def _stop_or_exit(stop: asyncio.Event, number: signal.Signals) -> None:
    if stop.is_set():
        os._exit(128 + number)  # asked twice: as good as a crash, which the store survives
    stop.set()


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that answers.

    Attributes:
        url: What a client uses as `base_url`.
        failed: Set if it cannot go on.
        asked_to_leave: Set if an operator wants it to drain and end.
    """

    url: str
    admin_url: str
    failed: asyncio.Event
    asked_to_leave: asyncio.Event


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Gateway]:
    """A gateway, from its first answer to the end of its drain.

    Raises:
        DatabaseInUse, DatabaseUnreachable, DatabaseRefused, StoreUnavailable: The file cannot be used.
        SealingKeyMissing: It holds credentials that nobody could read.
        TracerMissing: Traces are asked for, and what makes them is not installed.
        PortUnusable: A port cannot be listened on; nothing else was done.
    """
    server = settings.server
    base_path = URL(next(iter(settings.all_backends.values())).url).raw_path.rstrip("/") or "/v1"
    tracing = tracing_of(settings.tracing, version=__version__)
    observer = Observer(tracing)
    observer.durability.labels(settings.store.durability).set(1)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, tracing.close)  # it waits for the collector
        closing = stack.enter_context(ExitStack())
        sockets = await bound(closing, server.host, server.port, name="port")
        admin_sockets = await bound(closing, server.admin_host, server.admin_port, name="admin_port")
        store = await open_store(settings.store, observer)
        stack.push_async_callback(store.close)
        backends = await HttpBackends.open(settings, observer, stack)
        sender = await HttpWebhookSender.open(settings, stack)
        pepper = settings.tenants.read_pepper() or store.pepper
        await store.agree(
            {"tenants.pepper": hashlib.sha256(pepper).hexdigest(), "tenants.mode": settings.tenants.mode},
            backends.names,
        )
        engine = Engine(
            store,
            backends,
            sender,
            settings,
            observer,
            pepper=pepper,
            fingerprint=lambda named: fingerprint(named, settings.tenants, pepper),
        )
        passthrough = Passthrough(observer, stall_timeout_s=server.write_stall_timeout_s)
        chooser = Routing(backends)
        tenants = authenticator_of(settings.tenants, pepper)
        vetting = CredentialCheck(settings.tenants, base_path=base_path)
        callers = Callers(tenants, vetting, base_path=base_path)
        contract = openapi.document(
            version=__version__,
            base_path=base_path,
            dialect=engine.dialect,
            accepts_store_false=settings.background.store_false == "accept",
            callers=settings.tenants.mode,
            callers_header=settings.tenants.header,
        )
        responses = Responses(engine, passthrough, callers, chooser, settings, observer)
        router = Router(
            callers,
            responses,
            passthrough,
            backends,
            chooser,
            server,
            observer,
            base_path=base_path,
            contract=contract,
        )
        receivers = ReceiverRoutes(engine.receivers)
        overviews, operators, actions, orders = engine.for_operators(backends)
        asked_to_leave = asyncio.Event()
        access = Access(
            server.read_admin_token,
            server.read_admin_read_token,
            is_on_loopback=is_loopback(server.admin_host),
        )
        api = AdminApi(
            overviews,
            operators,
            Changes(actions, engine.receivers, engine.now_ms, asked_to_leave.set),
            receivers,
            engine.receivers,
            access,
            settings.ui,
            observer,
            engine.now_ms,
            stall_timeout_s=server.write_stall_timeout_s,
        )
        ops = Ops(
            observer,
            contract,
            engine.gauges.measure,
            engine.gauges.answers,
            backends.state,
            store.state,
            receivers,
            access,
            api,
            UiFiles() if settings.ui.page else None,
        )
        await orders.look()  # before the first job could start
        stack.push_async_callback(engine.stop)
        failed = await engine.start(
            *(backends.run(), watch_loop(observer), store.tend(), give_memory_back()),
            *(overviews.run(), orders.run()),
        )
        admin = Server(ops.handle, server, observer)
        public = Server(router.handle, server, observer, router.cors.settle)
        if server.fast_lane:
            public.lane = Lane(router, public, server, observer)
        admin_port = await _listen(stack, admin, admin_sockets)
        port = await _listen(stack, public, sockets)
        yield Gateway(
            f"{_origin(server.host, port)}{base_path}",
            _origin(server.admin_host, admin_port),
            failed,
            asked_to_leave,
        )
        ops.is_draining = public.is_leaving = True
        observer.draining.set(1)
        deadline = asyncio.get_running_loop().time() + server.drain_timeout_s
        await engine.drain(server.drain_timeout_s)
        with suppress(TimeoutError):
            async with loop.timeout(deadline - asyncio.get_running_loop().time()):
                await router.idle()


async def _listen(stack: AsyncExitStack, server: Server, sockets: list[socket.socket]) -> int:
    """Answer on sockets until the stack unwinds. Returns their port, for 0 the one that was free."""
    runner = web.ServerRunner(server, shutdown_timeout=_CLOSING_GRACE_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    for each in sockets:
        await web.SockSite(runner, each, backlog=BACKLOG).start()
    return int(sockets[0].getsockname()[1])


def _origin(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
