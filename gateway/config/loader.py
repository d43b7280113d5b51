"""Gathers the settings from flags, environment and file, and tells what is wrong with them.

Every problem is found in one go and names the line, variable or flag it comes from. Values stay text
until pydantic reads them, so that `port: 0123` or `level: off` mean the same in YAML as in the
environment. No message may carry a credential, nor text that might be one in the wrong place.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from gateway.config.models import Conflict, ConflictError, Section, Settings

_KEYS: dict[str, list[str]] = {
    section: list(field.annotation.model_fields)
    for section, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
NAMES = tuple(f"{section}.{key}" for section, keys in _KEYS.items() for key in keys)
FLAGS = {
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

_VARIABLES = {f"BACKBURNER_{name.upper().replace('.', '__')}": name for name in NAMES}
_FILE_VARIABLE = "BACKBURNER_CONFIG"
# Kubernetes sets these in every pod of a namespace that has a Service called backburner or backburner-….
_SERVICE_LINK = re.compile(r"BACKBURNER_(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP|SCTP)\w*)")
_REQUIRED = (
    "upstream.url is required: give --upstream http://host:8000/v1, BACKBURNER_UPSTREAM__URL, "
    "or upstream.url in the file"
)


class ConfigError(Exception):
    """The settings cannot be used; `problems` has one line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Given(NamedTuple):
    value: Any
    origin: str


_Layer = dict[str, _Given]


def load(argv_overrides: dict[str, Any], *, environ: Mapping[str, str], file: Path | None) -> Settings:
    """The settings in force; arguments and errors are those of `load_with_origins`."""
    return load_with_origins(argv_overrides, environ=environ, file=file)[0]


def load_with_origins(
    argv_overrides: dict[str, Any], *, environ: Mapping[str, str], file: Path | None
) -> tuple[Settings, dict[str, str]]:
    """The settings in force, and the origin of each one that was given.

    Args:
        argv_overrides: By setting (`server.port`); None means that the flag was not given.
        file: If None, the file that BACKBURNER_CONFIG names, if it does.

    Raises:
        ConfigError: With all problems at once.
    """
    problems: list[str] = []
    flags = {name: _Given(v, FLAGS.get(name, name)) for name, v in argv_overrides.items() if v is not None}
    layers = [flags, _from_environment(environ, problems)]
    if file is None and environ.get(_FILE_VARIABLE):
        file = Path(environ[_FILE_VARIABLE])
    if file is not None:
        try:
            layers.append(_from_file(file, problems))
        except ConfigError as error:  # judging the rest without the file would invent problems
            raise ConfigError(problems + error.problems) from None

    given = {name: value for layer in reversed(layers) for name, value in layer.items()}
    settings, unsound, conflicts = _validate(given)
    problems += [_describe(name, message, given) for name, message in unsound.items()]
    if unsound:  # pydantic compares settings only where each is sound: look again without the others
        sound = {name: value for name, value in given.items() if name not in unsound}
        sound.setdefault("upstream.url", _Given("http://not-given.invalid", ""))
        _, _, conflicts = _validate(sound)
    for names, reason in conflicts:
        if not unsound.keys() & set(names):
            origin = next(layer[name].origin for layer in layers for name in names if name in layer)
            problems.append(f"{origin}: {reason}")
    if settings is None or problems:
        raise ConfigError(problems)
    return settings, {name: value.origin for name, value in given.items()}


def _validate(given: _Layer) -> tuple[Settings | None, dict[str, str], list[Conflict]]:
    """The settings, or what is wrong: by setting, and between two settings."""
    sections: dict[str, dict[str, Any]] = {section: {} for section in _KEYS}
    for name, (value, _) in given.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = value
    try:
        return Settings.model_validate(sections), {}, []
    except ValidationError as error:
        found = error.errors(include_url=False)
    unsound: dict[str, str] = {}
    conflicts: list[Conflict] = []
    for item in found:
        reason = item.get("ctx", {}).get("error")
        if isinstance(reason, ConflictError):
            conflicts = reason.found
        else:
            name = ".".join(str(part) for part in item["loc"][:2])
            unsound[name] = str(reason) if isinstance(reason, ValueError) else item["msg"]
    return None, unsound, conflicts


def _describe(name: str, message: str, given: _Layer) -> str:
    if name not in given:
        return _REQUIRED
    value, origin = given[name]
    if name in ("upstream.api_key", "upstream.url"):  # a URL may have a password in it
        return f"{origin}: {name}: {message}"
    is_plain = isinstance(value, str) and re.fullmatch(r"[\w.:/+-]{1,200}", value)
    text = "null" if value is None else value if is_plain else ascii(value)[:200]
    text = "a list, mapping or tag" if value == [] else text
    return f"{origin}: {name}: {message} (got {text})"


def _unknown(what: str, candidates: Iterable[str], others: Iterable[str] = ()) -> str:
    near = difflib.get_close_matches(what, candidates, n=1) or list(others)[:1]
    return f"unknown setting; did you mean '{near[0]}'?" if near else "unknown setting"


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> _Layer:
    layer: _Layer = {}
    for variable, value in sorted(environ.items()):
        if variable in _VARIABLES:
            layer[_VARIABLES[variable]] = _Given(value, f"environment {variable}")
        elif variable.startswith("BACKBURNER_") and variable != _FILE_VARIABLE:
            is_link = _SERVICE_LINK.fullmatch(variable) or (variable.endswith("_PORT") and "://" in value)
            if not is_link:
                problems.append(f"environment {variable}: {_unknown(variable.upper(), _VARIABLES)}")
    return layer


def _from_file(file: Path, problems: list[str]) -> _Layer:
    """What the file says; raises ConfigError if that cannot be known at all."""
    try:
        root = yaml.compose(file.read_bytes(), Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read: {error.strerror}"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([_not_yaml(file, error)]) from None
    if root is None:
        raise ConfigError([f"{file}: is empty; it needs at least the url of an upstream"])
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError([f"{file}:{root.start_mark.line + 1}: must be a mapping of sections"])
    layer: _Layer = {}
    for section, origin, node in _entries(root, file, "", problems):
        if section not in _KEYS:
            elsewhere = [name for name in NAMES if section in (name, name.partition(".")[2])]
            problems.append(f"{origin}: {section}: {_unknown(section, _KEYS, elsewhere)}")
        elif isinstance(node, yaml.MappingNode):
            for key, key_origin, value in _entries(node, file, f"{section}.", problems):
                name = f"{section}.{key}"
                if name in NAMES:
                    layer[name] = _Given(_text(value), key_origin)
                else:
                    elsewhere = [other for other in NAMES if other.endswith(f".{key}")]
                    problems.append(f"{key_origin}: {name}: {_unknown(key, _KEYS[section], elsewhere)}")
        elif _text(node) is not None:  # a section whose every line is commented out is null
            problems.append(f"{origin}: {section}: must be a mapping of settings")
    return layer


def _not_yaml(file: Path, error: yaml.YAMLError) -> str:
    """Where and why, without what PyYAML quotes of the file: that line may hold a key."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        why = re.sub(r"(['\"])(?!<)[^'\"]{3,}\1", "…", error.problem or "")
        return f"{file}:{error.problem_mark.line + 1}: is not YAML: {why}"
    return f"{file}: is not YAML: {getattr(error, 'reason', 'it cannot be decoded')}"


def _entries(
    node: yaml.MappingNode, file: Path, prefix: str, problems: list[str]
) -> Iterator[tuple[str, str, yaml.Node]]:
    """Key, origin and value of each entry. Of a key given twice the first stands; either may be meant."""
    lines: dict[str, int] = {}
    for key_node, value in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or not re.fullmatch(r"[\w.-]{1,40}", key):
            problems.append(f"{file}:{line}: {prefix}?: this key cannot be the name of a setting")
        elif key in lines:
            problems.append(f"{file}:{line}: {prefix}{key}: given twice, first on line {lines[key]}")
        else:
            lines[key] = line
            yield key, f"{file}:{line}", value


def _text(node: yaml.Node) -> str | list[Any] | None:
    """What pydantic is to read: text, None, or a list, which no setting accepts."""
    if not isinstance(node, yaml.ScalarNode) or not node.tag.startswith("tag:yaml.org,2002:"):
        return []
    return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)
