"""`backburner check-config`: the settings in force, as a file would give them, and where each comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, SecretStr

from gateway.config import GROUPS, Settings


def shown(settings: Settings, origins: Mapping[str, str]) -> str:
    """All of them; no secret is told."""
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
            yield f"{indent}{key}: {value_of(value)}{origin}"


class _OneLine(yaml.SafeDumper):
    """Writes what our reader takes for the same text, and every value on one line."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_number = re.fullmatch(r"-?\d[\d.eE+-]*", text)  # in JSON; YAML 1.1 takes 1e3 for text
    style = '"' if is_number or re.search("[\n\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_OneLine.add_representer(str, _text)


def value_of(value: Any) -> str:
    """A value on one line."""
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
