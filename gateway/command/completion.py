"""Completion in bash, zsh and fish: what a shell is told, and what of a running gateway can be named.

The work is argcomplete's. It is asked only where the shell wants a word completed.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from gateway.command.admin import admin_of, look
from gateway.command.status import DONE, NotDone
from gateway.config import ConfigError

SHELLS = ("bash", "zsh", "fish")
STATES = ("live", "queued", "in_progress", "completed", "incomplete", "failed", "cancelled")
_ASKED = "_ARGCOMPLETE"
"""A shell sets it when it wants a word completed."""
_LIMIT = 100
_ANSWER_S = 1.5


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
    return [job["id"] for job in _found(parsed_args, "jobs", {"limit": _LIMIT, "id": prefix or None})["jobs"]]


def live_ids(prefix: str, parsed_args: Namespace, **_: Any) -> list[str]:
    """Those that can be cancelled."""
    found = _found(parsed_args, "jobs", {"limit": _LIMIT, "id": prefix or None, "state": "live"})
    return [job["id"] for job in found["jobs"]]


def backends(parsed_args: Namespace, **_: Any) -> list[str]:
    """Those of the gateway that runs."""
    return [each["name"] for each in _found(parsed_args, "overview")["backends"]]


def models(parsed_args: Namespace, **_: Any) -> list[str]:
    """Those of responses that are not over."""
    return list(_found(parsed_args, "overview")["models"])


def _found(args: Namespace, path: str, query: dict[str, object] | None = None) -> dict[str, Any]:
    """What the admin API says; nothing, if it does not at once: somebody waits for the next letter."""
    try:
        admin = admin_of(
            args.admin_host, args.admin_port, environ=os.environ, file=args.config, with_token=True
        )
        return look(admin, path, query, limit_s=_ANSWER_S)
    except (ConfigError, NotDone):
        return {"jobs": [], "backends": [], "models": []}
