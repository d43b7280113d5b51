"""Completion in bash, zsh and fish: what a shell is told, and what of a running gateway can be named.

The work is argcomplete's. It is asked only where the shell wants a word completed.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from gateway.command.admin import Admin, admin_of, look
from gateway.command.status import DONE, NotDone
from gateway.config import ConfigError

SHELLS = ("bash", "zsh", "fish")
STATES = ("live", "queued", "in_progress", "completed", "incomplete", "failed", "cancelled")
_ASKED = "_ARGCOMPLETE"
"""A shell sets it when it wants a word completed."""
_LIMIT = 100


def run(args: Namespace) -> int:
    """Print the lines for a shell."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["backburner"], shell=args.shell))
    return DONE


def answer_the_shell(parser: ArgumentParser, environ: Mapping[str, str]) -> None:
    """If a shell has asked for a word, give it those that fit, and leave."""
    if _ASKED in environ:
        import argcomplete

        argcomplete.autocomplete(parser)


def ids(prefix: str, parsed_args: Namespace, **_: Any) -> list[str]:
    """Responses that there are."""
    admin = _admin(parsed_args)
    try:
        found = [] if admin is None else look(admin, "jobs", limit=_LIMIT, id=prefix or None)["jobs"]
    except NotDone:
        return []
    return [job["id"] for job in found]


def live_ids(prefix: str, parsed_args: Namespace, **_: Any) -> list[str]:
    """Those that can be cancelled."""
    admin = _admin(parsed_args)
    try:
        query = {"id": prefix or None, "state": "live"}
        found = [] if admin is None else look(admin, "jobs", limit=_LIMIT, **query)["jobs"]
    except NotDone:
        return []
    return [job["id"] for job in found]


def backends(parsed_args: Namespace, **_: Any) -> list[str]:
    """Those of the gateway that runs."""
    admin = _admin(parsed_args)
    try:
        return [] if admin is None else [each["name"] for each in look(admin, "overview")["backends"]]
    except NotDone:
        return []


def models(parsed_args: Namespace, **_: Any) -> list[str]:
    """Those of responses that are not over."""
    admin = _admin(parsed_args)
    try:
        return [] if admin is None else list(look(admin, "overview")["models"])
    except NotDone:
        return []


def _admin(args: Namespace) -> Admin | None:
    try:
        return admin_of(
            args.admin_host, args.admin_port, environ=os.environ, file=args.config, with_token=True
        )
    except ConfigError:
        return None
