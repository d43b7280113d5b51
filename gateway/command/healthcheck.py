"""`backburner healthcheck`: whether a gateway is alive, for container runtimes."""

from __future__ import annotations

from argparse import Namespace

from gateway.command.admin import Admin, ask
from gateway.command.status import DONE


def run(admin: Admin, _args: Namespace) -> int:
    """The exit status. Raises: NotDone, if it does not say that it is alive."""
    ask(Admin(admin.url), "/healthz")
    return DONE
