"""The command `backburner`, also `python -m gateway`: serve, check-config, healthcheck, webhooks.

Only settings are judged here; what runs is wired in `gateway.app`, which is imported late so that
`healthcheck`, started every few seconds by a container runtime, stays cheap. What asks a running gateway
is in `gateway.remote`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, SecretStr

from gateway import __version__, remote
from gateway.config import FLAGS, GROUPS, ConfigError, Settings, load_with_origins

EX_CONFIG = 78  # sysexits.h; systemd's RestartPreventExitStatus can tell it from a crash

_HELP = {
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


def main(argv: list[str] | None = None) -> None:
    """Run one command and leave through `sys.exit` with its status."""
    parser = _parser()
    args, strays = parser.parse_known_args(argv)
    if strays:  # named without their values: one may be a key
        names = [stray.partition("=")[0] for stray in strays if stray.startswith("-")]
        parser.error(f"unrecognized arguments: {' '.join(names) or f'{len(strays)} too many'}")
    if args.command in ("healthcheck", "webhooks"):
        sys.exit(_ask_a_running_one(args))
    try:
        settings, origins = load_with_origins(
            {name: getattr(args, name) for name in FLAGS}, environ=os.environ, file=args.config
        )
    except ConfigError as error:
        for problem in error.problems:
            print(f"backburner: {problem}", file=sys.stderr)
        sys.exit(EX_CONFIG)
    if args.command == "check-config":
        print(_effective(settings, origins))
        sys.exit(0)
    from gateway.app import serve

    sys.exit(serve(settings))


def _ask_a_running_one(args: argparse.Namespace) -> int:
    """Run `healthcheck` or `webhooks`; returns the exit status."""
    is_check = args.command == "healthcheck"
    try:
        admin = remote.admin_of(
            args.admin_host,
            args.admin_port,
            environ=os.environ,
            file=args.config,
            with_token=not is_check,
        )
    except ConfigError as error:
        for problem in error.problems:
            print(f"backburner: {problem}", file=sys.stderr)
        return 1
    return (
        remote.healthcheck(admin)
        if is_check
        else remote.webhooks(admin, enable=args.enable, retry=args.retry)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="backburner",
        allow_abbrev=False,
        description="Background mode of the Responses API for every OpenAI-compatible server.",
    )
    parser.add_argument("--version", action="version", version=f"backburner {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, about in (
        ("serve", "run the gateway until SIGTERM or SIGINT"),
        ("check-config", "print the settings in force and where each comes from, and stop"),
    ):
        # No abbreviations: `--api-key SECRET` must not be taken for `--api-key-file SECRET`.
        sub = commands.add_parser(
            command,
            help=about,
            description=f"{about}.",
            allow_abbrev=False,
            epilog="Flags win over BACKBURNER_SECTION__KEY variables, which win over the file.",
        )
        sub.add_argument("--config", metavar="FILE", type=Path, help="YAML file; BACKBURNER_CONFIG otherwise")
        for name, flag in FLAGS.items():
            metavar, what = _HELP[name]
            sub.add_argument(flag, dest=name, metavar=metavar, help=f"{what} [{name}]")
    check = commands.add_parser(
        "healthcheck",
        help="ask a running gateway whether it is healthy; exit status 0 or 1",
        description="Exit status 0 if GET /healthz on the admin port answers 200, else 1.",
        allow_abbrev=False,
    )
    hooks = commands.add_parser(
        "webhooks",
        help="list who is told when responses end, and what they did not take; try again",
        description="Asks a running gateway, on its admin port. Exit status 0 if it could be done, else 1.",
        allow_abbrev=False,
    )
    change = hooks.add_mutually_exclusive_group()
    change.add_argument("--enable", metavar="NAME", help="send to an endpoint again that answered 410")
    change.add_argument("--retry", metavar="ID", help="try again now what waits about a response")
    for sub in (check, hooks):
        sub.add_argument("--config", metavar="FILE", type=Path, help="YAML file; BACKBURNER_CONFIG otherwise")
        sub.add_argument("--admin-host", metavar="HOST", help="default: server.admin_host of the settings")
        sub.add_argument("--admin-port", metavar="PORT", help="default: server.admin_port of the settings")
    return parser


def _effective(settings: Settings, origins: Mapping[str, str]) -> str:
    return "\n".join(_lines(settings, "", origins))


def _lines(section: BaseModel, prefix: str, origins: Mapping[str, str]) -> Iterator[str]:
    """The settings of a section, and of those within it, as a file would give them."""
    indent = "  " * prefix.count(".")
    for key, field in type(section).model_fields.items():
        name, value = f"{prefix}{key}", getattr(section, key)
        if isinstance(value, BaseModel):
            yield f"{indent}{key}:"
            yield from _lines(value, f"{name}.", origins)
        elif name in GROUPS:
            if value:
                yield f"{indent}{key}:"
            for one, its_settings in value.items():
                yield f"{indent}  {one}:"
                yield from _lines(its_settings, f"{name}.{one}.", origins)
        elif name != "upstream":  # not given: there are backends
            is_default = value == field.get_default(call_default_factory=True)
            origin = "" if is_default else f"  # {origins[name]}"
            yield f"{indent}{key}: {_yaml(value)}{origin}"


class _OneLine(yaml.SafeDumper):
    """Writes what our reader takes for the same text, and every value on one line."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_number = re.fullmatch(r"-?\d[\d.eE+-]*", text)  # in JSON; YAML 1.1 takes 1e3 for text
    style = '"' if is_number or re.search("[\n\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_OneLine.add_representer(str, _text)


def _yaml(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text: str = yaml.dump(
        _plain(value),
        Dumper=_OneLine,
        width=float("inf"),
        allow_unicode=True,
        default_flow_style=True,
        sort_keys=False,
    )
    return text.removesuffix("...\n").rstrip()


def _plain(value: Any) -> Any:
    match value:
        case SecretStr():
            return "***"
        case Path() | IPv4Network() | IPv6Network():
            return str(value)
        case tuple() | list():
            return [_plain(item) for item in value]
        case dict():
            return {key: _plain(item) for key, item in value.items()}
    return value


if __name__ == "__main__":
    main()
