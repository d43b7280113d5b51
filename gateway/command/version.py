"""`backburner version`: of this command, and of the gateway that runs."""

from __future__ import annotations

import json
import platform
import sqlite3
from argparse import Namespace

from gateway import __version__
from gateway.command import screen
from gateway.command.admin import Admin, look
from gateway.command.status import DONE, NotDone


def run(admin: Admin | None, args: Namespace) -> int:
    """Print them. That no gateway answers is no failure: it is said."""
    gateway, problem = None, "the settings do not say where it is"
    try:
        gateway = look(admin, "overview")["version"] if admin is not None else None
    except NotDone as error:
        problem = str(error)
    here = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    if args.output == "json":
        screen.write(json.dumps({"command": __version__, "gateway": gateway, **here}))
        return DONE
    print(f"backburner {__version__} (Python {here['python']}, SQLite {here['sqlite']})")
    print(f"gateway    {gateway or f'unknown: {problem}'}")
    return DONE
