"""The names of the settings, where each may be given, and what shape its value has.

A setting's full name is `section.key`, `backends.NAME.key` for one of several backends, or just `key`
for the few that are in no section.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple, get_args, get_origin

from gateway.config.backends import UpstreamSettings
from gateway.config.models import Settings
from gateway.config.section import Section


class Shape(Enum):
    """What the value of a setting looks like in a file."""

    SCALAR = "scalar"
    LIST = "list"
    MAPPING = "mapping"
    JSON = "a mapping of JSON values"


class Given(NamedTuple):
    """A value as it was given, not yet judged."""

    value: Any
    origin: str
    """What a person would look for: a flag, a variable, a line of a file."""
    items: Mapping[str, str] = {}
    """The origins of its items, by index or key, where they have their own."""


Layer = dict[str, Given]  # by full name; `backends` and `backends.NAME` stand there with MENTIONED
MENTIONED = object()
UNUSABLE = object()  # no setting accepts it


def _section_of(annotation: Any) -> type[Section] | None:
    if get_origin(annotation) is dict:
        return None
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


SECTIONS = {
    name: section
    for name, field in Settings.model_fields.items()
    if (section := _section_of(field.annotation)) is not None
}
SCALARS = tuple(name for name in Settings.model_fields if name not in SECTIONS and name != "backends")
KEYS = {section: tuple(model.model_fields) for section, model in SECTIONS.items()}
BACKEND_KEYS = tuple(UpstreamSettings.model_fields)
NAMES = SCALARS + tuple(f"{section}.{key}" for section, keys in KEYS.items() for key in keys)
FLAGS = {
    "dialect": "--dialect",
    "upstream.url": "--upstream",
    "upstream.api": "--api",
    "upstream.api_key_file": "--api-key-file",
    "server.host": "--host",
    "server.port": "--port",
    "server.admin_port": "--admin-port",
    "store.database": "--database",
    "background.retention_s": "--retention-s",
    "log.level": "--log-level",
}


def shape(name: str) -> Shape:
    """The shape of a setting's value; SCALAR also for a name that nobody knows."""
    path = name.split(".")
    model = UpstreamSettings if path[0] == "backends" else SECTIONS.get(path[0])
    if model is None or path[-1] not in model.model_fields:
        return Shape.SCALAR
    if (model, path[-1]) == (UpstreamSettings, "set_fields"):
        return Shape.JSON
    origin = get_origin(model.model_fields[path[-1]].annotation)
    return Shape.LIST if origin is tuple else Shape.MAPPING if origin is dict else Shape.SCALAR


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"BACKBURNER_{name.upper().replace('.', '__').replace('-', '_')}"


def unknown(what: str, candidates: Iterable[str], others: Iterable[str] = ()) -> str:
    """What to say about a name that is not a setting's."""
    near = list(others)[:1] or difflib.get_close_matches(what, candidates, n=1)
    return f"unknown setting; did you mean '{near[0]}'?" if near else "unknown setting"


def is_plain(text: str) -> bool:
    """Whether a value may be shown as it is, on a line of its own words."""
    return re.fullmatch(r"[\w.:/+-]{1,200}", text) is not None
