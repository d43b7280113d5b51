"""Gathers the settings from flags, environment and file, and tells what is wrong with them.

Every problem is found in one go and names the line, variable or flag it comes from. No message may carry
a credential, nor text that might be one in the wrong place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from gateway.config.conflicts import Conflict, ConflictError
from gateway.config.environment import FILE_VARIABLE, read_environment
from gateway.config.file import FileUnusable, read_file
from gateway.config.models import ServerSettings, Settings
from gateway.config.names import (
    FLAGS,
    GROUPS,
    MENTIONED,
    SECTIONS,
    UNUSABLE,
    Given,
    Layer,
    Shape,
    depth_of,
    group_of,
    needs_no_quotes,
    shape,
)

_REQUIRED = (
    "upstream.url is required: give --upstream http://host:8000/v1, BACKBURNER_UPSTREAM__URL, "
    "or upstream.url in the file"
)
# Values that are never told: a URL may have a password in it, and a key may be where its place should be.
_UNTOLD = frozenset(
    {
        "admin_read_token_env",
        "admin_token_env",
        "api_key",
        "api_key_env",
        "headers",
        "pepper",
        "replicas",
        "sealing_keys",
        "secret_envs",
        "secrets",
    }
    | {"set_fields", "url"}
)
_PLAIN_MESSAGES = {"tuple_type": "must be a list", "dict_type": "must be a mapping"}


class ConfigError(Exception):
    """The settings cannot be used; `problems` has one line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _FieldError(NamedTuple):
    """One thing that pydantic found: the setting, the item of it, if it is one, and what is wrong."""

    name: str
    item: str | None
    message: str


def load(argv_overrides: dict[str, Any], *, environ: Mapping[str, str], file: Path | None) -> Settings:
    """The settings in force; arguments and errors are those of `load_with_origins`."""
    return load_with_origins(argv_overrides, environ=environ, file=file)[0]


def load_with_origins(
    argv_overrides: dict[str, Any], *, environ: Mapping[str, str], file: Path | None
) -> tuple[Settings, dict[str, str]]:
    """The settings in force, and the origin of each one that was given.

    Args:
        argv_overrides: By setting (`server.port`); None means that the flag was not given.
        environ: Also where the keys are that `api_key_env` names.
        file: If None, the file that BACKBURNER_CONFIG names, if it does.

    Raises:
        ConfigError: With all problems at once.
    """
    layers, problems = _gather(argv_overrides, environ, file)
    given = {name: value for layer in reversed(layers) for name, value in layer.items()}
    settings, faults, conflicts = _validate(given, environ)
    problems += [text for fault in faults if (text := _describe(fault, given))]
    unsound = {fault.name for fault in faults}
    if unsound:  # pydantic compares settings only where each is sound: look again without the others
        sound = {name: value for name, value in given.items() if name not in unsound}
        for number, name in enumerate(unsound):
            if name.endswith(".url"):
                sound[name] = Given(f"http://{number}.invalid", "")
        _, _, conflicts = _validate(sound, environ)
    for names, reason in conflicts:
        if not unsound & set(names):
            problems.append(f"{_origin(names, layers)}: {reason}")
    if settings is None or problems:
        raise ConfigError(problems)
    return settings, {name: given[name].origin for name in given if given[name].value is not MENTIONED}


def load_server(names: Iterable[str], *, environ: Mapping[str, str], file: Path | None) -> ServerSettings:
    """The section `server` with these of its settings only, for a command that asks a gateway which runs.

    What is wrong with all the others is not its business.

    Raises:
        ConfigError: One of these cannot be used, or the file cannot be read.
    """
    layers, _ = _gather({}, environ, file)
    given = {name: value for layer in reversed(layers) for name, value in layer.items() if name in names}
    values = {name.partition(".")[2]: value for name, (value, *_) in given.items()}
    try:
        return ServerSettings.model_validate(values, context={"environ": environ})
    except ValidationError as error:
        found = error.errors(include_url=False)
    faults = [_FieldError(f"server.{item['loc'][0]}", None, item["msg"]) for item in found if item["loc"]]
    raise ConfigError([text for fault in faults if (text := _describe(fault, given))])


def _gather(
    argv_overrides: dict[str, Any], environ: Mapping[str, str], file: Path | None
) -> tuple[list[Layer], list[str]]:
    """The values of flags, environment and file, and the names in them that are no settings."""
    flags = {name: Given(v, FLAGS.get(name, name)) for name, v in argv_overrides.items() if v is not None}
    from_file: Layer = {}
    problems: list[str] = []
    problems_of_file: list[str] = []
    if file is None and environ.get(FILE_VARIABLE):
        file = Path(environ[FILE_VARIABLE])
    try:
        from_file = {} if file is None else read_file(file, problems_of_file)
    except FileUnusable as error:  # judging the rest without the file would invent problems
        read_environment(environ, (), problems)
        raise ConfigError([*problems, str(error)]) from None
    known = [name for name, given in from_file.items() if given.value is MENTIONED]
    from_environment = read_environment(environ, known, problems)
    return [flags, from_environment, from_file], problems + problems_of_file


def _validate(
    given: Layer, environ: Mapping[str, str]
) -> tuple[Settings | None, list[_FieldError], list[Conflict]]:
    """The settings, or what is wrong: in each, and between several."""
    document: dict[str, Any] = {section: {} for section in SECTIONS if section != "upstream"}
    for name, (value, *_) in given.items():
        *path, key = name.split(".")
        place = document
        for step in path:
            place = place.setdefault(step, {})
        if value is MENTIONED:
            place.setdefault(key, {})
        else:
            place[key] = value
    if not document.get("backends"):
        document.setdefault("upstream", {})
    try:
        return Settings.model_validate(document, context={"environ": environ}), [], []
    except ValidationError as error:
        found = error.errors(include_url=False)
    faults: list[_FieldError] = []
    for item in found:
        reason = item.get("ctx", {}).get("error")
        if isinstance(reason, ConflictError):
            return None, [], reason.found
        message = str(reason) if isinstance(reason, ValueError) else _PLAIN_MESSAGES.get(item["type"])
        loc = [str(part) for part in item["loc"]]
        depth = depth_of(loc)
        part = loc[depth] if len(loc) > depth else None
        faults.append(_FieldError(".".join(loc[:depth]), part, message or item["msg"]))
    return None, faults, []


def _describe(fault: _FieldError, given: Layer) -> str | None:
    """One line about a fault; None if it is only there because of another problem."""
    name, item, message = fault
    if name not in given:
        if name != "upstream.url":
            place, group = name.rpartition(".")[0], GROUPS[str(group_of(name))]
            return f"{given[place].origin}: {name} is required: {group.url}"
        return None if "backends" in given else _REQUIRED
    value, origin, origins = given[name]
    if item is not None:
        origin = origins.get(item, origin)
        if shape(name) is Shape.LIST and isinstance(value, list):
            value = value[int(item)]
            message = f"item {int(item) + 1}: {message}"
        else:
            value = None
    is_shown = value is not None or (item is None and shape(name) is Shape.SCALAR)
    is_shown = is_shown and value is not MENTIONED
    if name.rpartition(".")[2] in _UNTOLD or isinstance(value, (list, dict)) or not is_shown:
        return f"{origin}: {name}: {message}"
    text = "null" if value is None else value if needs_no_quotes(str(value)) else ascii(value)[:200]
    text = "a list, mapping or tag" if value is UNUSABLE else text
    return f"{origin}: {name}: {message} (got {text})"


def _origin(names: tuple[str, ...], layers: list[Layer]) -> str:
    """Where the first of these settings, or the first setting of these sections, was given."""
    for layer in layers:
        for name in names:
            for other, value in layer.items():
                if other == name or other.startswith(f"{name}."):
                    return value.origin
    raise AssertionError("defaults do not contradict each other")
