"""`backburner doctor`: looks at everything around a gateway, by its settings, and says what to change."""

from __future__ import annotations

import asyncio
import os
import sys
from argparse import Namespace
from contextlib import aclosing

from gateway.command import screen
from gateway.command.admin import Admin, admin_of
from gateway.command.doctor import host, report
from gateway.command.doctor.backend import Wish, examine
from gateway.command.doctor.database import database
from gateway.command.doctor.findings import Finding, Level
from gateway.command.status import DONE, NOT_DONE, NotDone
from gateway.config import ConfigError, Settings, UpstreamSettings


def run(settings: Settings, args: Namespace) -> int:
    """Print what is found; the exit status is 1 if something is wrong. Raises: NotDone."""
    backends = settings.all_backends
    if args.backend is not None:
        if args.backend not in backends:
            raise NotDone(f"the settings have no backend {args.backend}; there are {', '.join(backends)}")
        backends = {args.backend: backends[args.backend]}
    key = os.environ.get(args.key_env, "") if args.key_env is not None else None
    if key == "":
        raise NotDone(f"the variable {args.key_env} is empty")
    with _Progress() as progress:
        wish = Wish(args.model, key, not args.no_requests, args.tokens, args.timeout, progress.told, skews=[])
        findings = asyncio.run(_examined(backends, wish))
        progress.told("store, clock and descriptors")
        shared = settings.store.is_shared
        findings += asyncio.run(database(settings.store)) if shared else host.store(settings.store)
        now, gateway = host.gateway_status(_admin(args))
        findings += [*host.clock(settings.store, wish.skews, gateway), *host.descriptors(settings), now]
    pasted = report.pasted(findings, is_single=settings.upstream is not None)
    if args.output == "json":
        screen.write(report.as_json(findings, pasted))
    else:
        report.show(findings, pasted)
    return NOT_DONE if any(each.level is Level.WRONG for each in findings) else DONE


async def _examined(backends: dict[str, UpstreamSettings], wish: Wish) -> list[Finding]:
    found = []
    for name, settings in backends.items():
        async with aclosing(examine(name, settings, wish)) as ones:
            found += [each async for each in ones]
    return found


def _admin(args: Namespace) -> Admin | None:
    port = getattr(args, "server.admin_port")
    try:
        return admin_of(None, port, environ=os.environ, file=args.config, with_token=True)
    except ConfigError:
        return None


class _Progress:
    """A line on stderr that says what is done, where somebody sees it."""

    def __init__(self) -> None:
        self._is_seen = sys.stderr.isatty()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._put("")

    def told(self, what: str) -> None:
        """This is done now."""
        self._put(f"{what} …")

    def _put(self, text: str) -> None:
        if self._is_seen:
            sys.stderr.write(f"\r\x1b[K{screen.one_line(text)}")
            sys.stderr.flush()
