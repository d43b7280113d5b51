"""The command `backburner`, also `python -m gateway`: the one that was named is started here.

What each does is in `gateway.command`, and what serves is wired in `gateway.app`. Each is imported late, so
that `healthcheck`, started every few seconds by a container runtime, stays cheap.
"""

from __future__ import annotations

import gc
import os
import sys
from argparse import Namespace
from importlib import import_module

from gateway.command import completion, parser, status
from gateway.command.admin import admin_of
from gateway.config import FLAGS, ConfigError, Settings, load_with_origins

_ASKING = {
    **{name: name for name in ("healthcheck", "job", "jobs", "tail", "top", "version", "webhooks")},
    **dict.fromkeys(("cancel", "delete", "drain", "pause", "rerun", "resume", "tier"), "acts"),
}
"""The commands that ask a gateway which runs, and the modules that do it."""


def main(argv: list[str] | None = None) -> None:
    """Run one command and leave through `sys.exit` with its status."""
    args = parser.parse(argv, before=lambda made: completion.answer_the_shell(made, os.environ))
    try:
        done = _run(args)
        if sys.stdout is not None:  # a service may have closed it
            sys.stdout.flush()
        sys.exit(done)
    except ConfigError as error:
        for problem in error.problems:
            print(f"backburner: {problem}", file=sys.stderr)
        sys.exit(status.NOT_DONE if args.command in _ASKING else status.EX_CONFIG)
    except status.NotDone as error:
        print(f"backburner: {error}", file=sys.stderr)
        sys.exit(status.NOT_DONE)
    except KeyboardInterrupt:
        sys.exit(status.INTERRUPTED)
    except BrokenPipeError:  # whoever reads has enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(status.DONE)


def _run(args: Namespace) -> int:
    """Start it. Raises: ConfigError, NotDone."""
    if args.command in _ASKING:
        return _ask_a_running_one(args)
    if args.command == "completion":
        return completion.run(args)
    settings, origins = load_with_origins(
        {name: getattr(args, name) for name in FLAGS}, environ=os.environ, file=args.config
    )
    match args.command:
        case "check-config":
            from gateway.command import effective

            print(effective.shown(settings, origins))
            return status.DONE
        case "doctor":
            from gateway.command import doctor

            return doctor.run(settings, args)
    return _serve(settings)


def _serve(settings: Settings) -> int:
    gc.disable()  # imports leave nothing to collect; looking for it would be an eighth of a start
    from gateway.app import serve

    gc.enable()
    return serve(settings)


def _ask_a_running_one(args: Namespace) -> int:
    try:
        admin = admin_of(
            args.admin_host,
            args.admin_port,
            environ=os.environ,
            file=args.config,
            with_token=args.command != "healthcheck",
        )
    except ConfigError:
        if args.command != "version":
            raise
        admin = None
    done: int = import_module(f"gateway.command.{_ASKING[args.command]}").run(admin, args)
    return done


if __name__ == "__main__":
    main()
