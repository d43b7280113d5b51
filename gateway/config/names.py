"""The names of the settings, where each may be given, and what shape its value has.

A setting's full name is `section.key`, or just `key` for the few that are in no section. A group is a section
of which there are several, by name: `backends.NAME.key`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, get_args, get_origin

from gateway.config.backends import UpstreamSettings
from gateway.config.models import Settings
from gateway.config.section import Section
from gateway.config.tenants import TenantSettings
from gateway.config.webhooks import EndpointSettings


class Shape(Enum):
    """The form of a value in a file."""

    SCALAR = "scalar"
    LIST = "list"
    MAPPING = "mapping"
    JSON = "a mapping of JSON values"


class Given(NamedTuple):
    """A value as it was given, not yet judged."""

    value: Any
    origin: str
    """The place that a person would look at: a flag, a variable, a line of a file."""
    items: Mapping[str, str] = {}
    """The origins of its items, by index or key, where they have their own."""


class Group(NamedTuple):
    """A section of which there are several."""

    model: type[Section]
    one: str
    """The word for one member."""
    url: str
    """A description of its required `url`."""


Layer = dict[str, Given]  # by full name; `backends` and `backends.NAME` stand there with MENTIONED
MENTIONED = object()
UNUSABLE = object()  # no setting accepts it


def _section_of(annotation: Any) -> type[Section] | None:
    if get_origin(annotation) is dict:
        return None
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


GROUPS = {
    "backends": Group(UpstreamSettings, "a backend", "the base URL of that model server"),
    "webhooks.endpoints": Group(EndpointSettings, "an endpoint", "where its events are sent"),
}
SECTIONS = {
    name: section
    for name, field in Settings.model_fields.items()
    if (section := _section_of(field.annotation)) is not None
}
SCALARS = tuple(name for name in Settings.model_fields if name not in SECTIONS and name not in GROUPS)
KEYS = {
    section: tuple(key for key in model.model_fields if f"{section}.{key}" not in GROUPS)
    for section, model in SECTIONS.items()
}
GROUP_KEYS = {name: tuple(group.model.model_fields) for name, group in GROUPS.items()}
BACKEND_KEYS = GROUP_KEYS["backends"]
NAMES = SCALARS + tuple(f"{section}.{key}" for section, keys in KEYS.items() for key in keys)
_JSON_SETTINGS = ((UpstreamSettings, "set_fields"), (TenantSettings, "tiers_allowed"))
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
    "log.format": "--log-format",
}


def group_of(name: str) -> str | None:
    """The group that a setting, or one of a group, is in."""
    return next((group for group in GROUPS if name.startswith(f"{group}.")), None)


def depth_of(path: Sequence[str]) -> int:
    """The number of parts of a path that name a setting; the rest leads into its value."""
    group = group_of(".".join(path))
    return 1 if path[0] in SCALARS else 2 if group is None else group.count(".") + 3


def shape(name: str) -> Shape:
    """The shape of a setting's value; SCALAR also for a name that nobody knows."""
    group, key = group_of(name), name.rpartition(".")[2]
    model = GROUPS[group].model if group is not None else SECTIONS.get(name.partition(".")[0])
    if model is None or key not in model.model_fields:
        return Shape.SCALAR
    if (model, key) in _JSON_SETTINGS:
        return Shape.JSON
    origin = get_origin(model.model_fields[key].annotation)
    return Shape.LIST if origin is tuple else Shape.MAPPING if origin is dict else Shape.SCALAR


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"BACKBURNER_{name.upper().replace('.', '__').replace('-', '_')}"


def unknown(what: str, candidates: Iterable[str], others: Iterable[str] = ()) -> str:
    """The message about a name that is no setting."""
    near = list(others)[:1] or difflib.get_close_matches(what, candidates, n=1)
    return f"unknown setting; did you mean '{near[0]}'?" if near else "unknown setting"


def needs_no_quotes(text: str) -> bool:
    """True if a value may be shown as it is, on a line of its own words."""
    return re.fullmatch(r"[\w.:/+-]{1,200}", text) is not None
