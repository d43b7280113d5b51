"""The command line: which commands and flags there are, and what completes them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.command import completion
from gateway.config import FLAGS
from gateway.core.tiers import TIERS

_SETTINGS = {
    "dialect": ("DIALECT", "whose variant of the public API to speak: openai, mka1 or pharia"),
    "upstream.url": ("URL", "base URL of the model server, e.g. http://localhost:8000/v1"),
    "upstream.api": ("API", "what it speaks: responses, chat, or auto to ask it once"),
    "upstream.api_key_file": ("PATH", "file with the key for the model server, readable by its owner only"),
    "server.host": ("HOST", "address to listen on"),
    "server.port": ("PORT", "port to listen on; 0 picks a free one"),
    "server.admin_port": ("PORT", "port for health and metrics; 0 picks a free one"),
    "store.database": ("PATH", "the database file"),
    "background.retention_s": ("SECONDS", "how long a finished response is kept"),
    "log.level": ("LEVEL", "debug, info, warning or error"),
    "log.format": ("FORMAT", "json, text, or auto: text on a terminal"),
}
_STATUS = "Exit status 0 if it could be done, else 1."
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SPAN_S_MAX = 3_600.0

_Commands = Any  # argparse has no public name for what `add_subparsers` returns


def parse(argv: list[str] | None, *, before: Callable[[argparse.ArgumentParser], None]) -> argparse.Namespace:
    """What was asked for. Leaves with status 2 if the command line is wrong.

    Args:
        before: Called with the parser before it is used.
    """
    parser = _parser()
    before(parser)
    args, strays = parser.parse_known_args(argv)
    if strays:  # named without their values: one may be a key
        names = [stray.partition("=")[0] for stray in strays if stray.startswith("-")]
        parser.error(f"unrecognized arguments: {' '.join(names) or f'{len(strays)} too many'}")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="backburner",
        allow_abbrev=False,
        description="Background mode of the Responses API for every OpenAI-compatible server.",
    )
    parser.add_argument("--version", action="version", version=f"backburner {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _serving(commands)
    _seeing(commands)
    _changing(commands)
    _around(commands)
    return parser


def _command(commands: _Commands, name: str, about: str, *, also: str = _STATUS) -> argparse.ArgumentParser:
    # No abbreviations: `--api-key SECRET` must not be taken for `--api-key-file SECRET`.
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=f"{about}. {also}", allow_abbrev=False
    )
    return made


def _serving(commands: _Commands) -> None:
    for name, about in (
        ("serve", "run the gateway until SIGTERM or SIGINT"),
        ("check-config", "print the settings in force and where each comes from, and stop"),
    ):
        sub = _command(commands, name, about, also="")
        sub.epilog = "Flags win over BACKBURNER_SECTION__KEY variables, which win over the file."
        _config(sub)
        _settings(sub)


def _seeing(commands: _Commands) -> None:
    sub = _asking(commands, "healthcheck", "ask a running gateway whether it is healthy; exit status 0 or 1")
    sub = _asking(commands, "jobs", "list background responses", output=("table", "wide", "json", "name"))
    _filters(sub)
    sub.add_argument(
        "--order", choices=("newest", "oldest", "events", "speed"), default="newest",
        help="which come first; events and speed list those in progress only",
    )  # fmt: skip
    sub.add_argument("--limit", metavar="N", type=_count, default=50, help="so many at most [50]")
    sub.add_argument("-w", "--watch", action="store_true", help="keep it up to date, until Ctrl-C")
    _every(sub)
    sub = _asking(commands, "job", "show all about one response: why it waits, its timeline", output=_JSON)
    _id(sub, completion.ids)
    sub = _asking(
        commands, "tail", "follow the text of a response as it comes", output=("text", "json"),
        also="Exit status 0 if it ends well, 3 if it fails or is cancelled, 1 if it could not be followed.",
    )  # fmt: skip
    _id(sub, completion.ids)
    sub.add_argument("--after", metavar="N", type=int, default=-1, help="only events after this number")
    sub = _asking(commands, "top", "show how it stands, kept up to date on a terminal", output=_JSON)
    sub.add_argument("--once", action="store_true", help="only once")
    _every(sub)
    sub = _asking(
        commands, "webhooks", "list who is told when responses end, and what they did not take; try again",
        output=_JSON,
    )  # fmt: skip
    change = sub.add_mutually_exclusive_group()
    change.add_argument("--enable", metavar="NAME", help="send to an endpoint again that answered 410")
    change.add_argument("--retry", metavar="ID", help="try again now what waits about a response")


def _changing(commands: _Commands) -> None:
    sub = _asking(commands, "cancel", "cancel responses: these, or all that match filters", output=_TEXT)
    _completed(sub.add_argument("ids", metavar="ID", nargs="*", help=_ID), completion.live_ids)
    _filters(sub)
    sub.add_argument("--all", action="store_true", help="all that are not over")
    _sure(sub)
    sub = _asking(
        commands, "rerun", "run responses that are over again, as new ones: these, or all that match filters",
        output=_TEXT,
    )  # fmt: skip
    _completed(sub.add_argument("ids", metavar="ID", nargs="*", help=_ID), completion.ids)
    _filters(sub)
    _sure(sub)
    sub = _asking(
        commands, "delete", "delete responses that are over: these, or all that match filters", output=_TEXT
    )
    _completed(sub.add_argument("ids", metavar="ID", nargs="*", help=_ID), completion.ids)
    _filters(sub)
    _sure(sub)
    sub = _asking(
        commands, "tier", "put queued responses into another tier: these, or all that match filters",
        output=_TEXT,
    )  # fmt: skip
    sub.add_argument("tier", metavar="TIER", choices=TIERS, help=f"one of {', '.join(TIERS)}")
    _completed(sub.add_argument("ids", metavar="ID", nargs="*", help=_ID), completion.live_ids)
    _filters(sub)
    _sure(sub)
    for name, about in (
        ("pause", "start no more responses at a backend; those that run go on"),
        ("resume", "start responses at a backend again"),
    ):
        sub = _asking(commands, name, about, output=_TEXT)
        backend = sub.add_argument("backend", metavar="BACKEND", help="its name in the settings")
        _completed(backend, completion.backends)
    sub = _asking(commands, "drain", "end the gateway in good order, as SIGTERM does", output=_TEXT)
    sub.add_argument("--wait", action="store_true", help="come back when it has stopped")


def _around(commands: _Commands) -> None:
    sub = _command(
        commands, "doctor", "look at backends, store, clock and descriptors, and say what to change",
        also="Makes some ten small requests to each backend. Exit status 0 if nothing is wrong, 1 if "
        "something is, 78 if the settings cannot be used.",
    )  # fmt: skip
    _config(sub)
    _settings(sub)
    sub.add_argument("--backend", metavar="NAME", help="only this one")
    sub.add_argument("--model", metavar="MODEL", help="what to ask for, as the backend calls it")
    sub.add_argument(
        "--key-env", metavar="NAME", help="variable with a caller's key, where the gateway has none"
    )
    sub.add_argument("--no-requests", action="store_true", help="ask no model anything: no tokens are made")
    sub.add_argument(
        "--tokens",
        metavar="N",
        type=_count,
        default=512,
        help="of the longest answer that is asked for [512]",
    )
    sub.add_argument("--timeout", metavar="TIME", type=_span, default=30.0, help="for one request [30s]")
    _output(sub, _JSON)
    _asking(commands, "version", "print the version of this command and of the running gateway", output=_TEXT)
    sub = _command(commands, "completion", "print what makes a shell complete this command", also="")
    sub.add_argument("shell", choices=completion.SHELLS)


# -- flags that several have

_JSON = ("table", "json")
_TEXT = ("text", "json")
_ID = "an id, or the beginning of one"


def _asking(
    commands: _Commands, name: str, about: str, *, output: tuple[str, ...] = (), also: str = _STATUS
) -> argparse.ArgumentParser:
    sub = _command(commands, name, about, also=also)
    _config(sub)
    sub.add_argument("--admin-host", metavar="HOST", help="default: server.admin_host of the settings")
    sub.add_argument("--admin-port", metavar="PORT", help="default: server.admin_port of the settings")
    if output:
        _output(sub, output)
    return sub


def _config(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--config", metavar="FILE", type=Path, help="YAML file; BACKBURNER_CONFIG otherwise")


def _settings(sub: argparse.ArgumentParser) -> None:
    for name, flag in FLAGS.items():
        metavar, what = _SETTINGS[name]
        sub.add_argument(flag, dest=name, metavar=metavar, help=f"{what} [{name}]")


def _output(sub: argparse.ArgumentParser, forms: tuple[str, ...]) -> None:
    said = f"{', '.join(forms)}; json is what the API says"
    sub.add_argument("-o", "--output", choices=forms, default=forms[0], help=said)


def _filters(sub: argparse.ArgumentParser) -> None:
    state = sub.add_argument("--state", metavar="STATE", help="some of the six with commas between, or live")
    _completed(state, lambda **_: completion.STATES)
    model = sub.add_argument("--model", metavar="MODEL", help="as clients call it")
    _completed(model, completion.models)
    backend = sub.add_argument("--backend", metavar="NAME", help="its name in the settings")
    _completed(backend, completion.backends)
    sub.add_argument("--tenant", metavar="DIGITS", help="the first digits, as a list shows them")
    sub.add_argument("--error", metavar="CODE", help="by which they failed")
    sub.add_argument("--older", metavar="TIME", help="accepted longer ago than: 90s, 5m, 2h, 1d")
    sub.add_argument("--newer", metavar="TIME", help="accepted within")


def _sure(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("-y", "--yes", action="store_true", help="without asking")
    sub.add_argument("--dry-run", action="store_true", help="only say which")


def _every(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--every", metavar="TIME", type=_span, default=2.0, help="how often to look [2s]")


def _completed(argument: argparse.Action, completer: Callable[..., Sequence[str]]) -> None:
    """What a shell is offered for an argument."""
    argument.completer = completer  # type: ignore[attr-defined]  # this is how argcomplete is told


def _id(sub: argparse.ArgumentParser, completer: Callable[..., list[str]]) -> None:
    one = sub.add_argument("id", metavar="ID", help="an id, or so much of its beginning that it means one")
    _completed(one, completer)


def _span(text: str) -> float:
    """`2`, `500ms`, `90s`, `5m`."""
    found = _SPAN.fullmatch(text)
    seconds = float(found[1]) * _UNITS[found[2] or "s"] if found else 0.0
    if not 0.1 <= seconds <= _SPAN_S_MAX:
        raise argparse.ArgumentTypeError("must be a length of time from 100ms to 1h, as 2s or 5m")
    return seconds


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10_000):
        raise argparse.ArgumentTypeError("must be a whole number from 1 to 10000")
    return int(text)
