"""Reads the settings file: which values it gives, on which lines, and which of its keys nobody knows.

Scalars stay text until pydantic reads them, so that `port: 0123` or `level: off` mean the same here as
in the environment; only `set_fields` and `tiers_allowed` hold values with types of their own, those of JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from gateway.config.backends import JSON_DEPTH_MAX
from gateway.config.names import (
    GROUP_KEYS,
    GROUPS,
    KEYS,
    MENTIONED,
    NAMES,
    SCALARS,
    UNUSABLE,
    Given,
    Layer,
    Shape,
    shape,
    unknown,
)
from gateway.config.section import NAME_PATTERN

_TAG = "tag:yaml.org,2002:"


class FileUnusable(Exception):
    """The file cannot be read as settings. The text says why and quotes nothing of the file."""


def read_file(file: Path, problems: list[str]) -> Layer:
    """The settings of the file. Problems of its keys are added to `problems`.

    Raises:
        FileUnusable: It cannot be read, or is not a mapping in YAML.
    """
    try:
        root = yaml.compose(file.read_bytes(), Loader=yaml.SafeLoader)
    except OSError as error:
        raise FileUnusable(f"{file}: cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise FileUnusable(_not_yaml(file, error)) from None
    except RecursionError:
        raise FileUnusable(f"{file}: is not YAML that can be read: it is nested too deeply") from None
    if root is None:
        raise FileUnusable(f"{file}: is empty; it needs at least the url of an upstream")
    if not isinstance(root, yaml.MappingNode):
        raise FileUnusable(f"{file}:{_line(root)}: must be a mapping of sections")
    return _YamlReader(file, problems).read(root)


class _YamlReader:
    def __init__(self, file: Path, problems: list[str]) -> None:
        self._file = file
        self._problems = problems
        self._layer: Layer = {}

    def read(self, root: yaml.MappingNode) -> Layer:
        for key, origin, node in self._settings(root, ""):
            if key in SCALARS:
                self._layer[key] = Given(_text(node), origin)
            elif key in GROUPS:
                self._read_group(key, origin, node)
            elif key in KEYS:
                self._read_section(key, KEYS[key], origin, node)
            else:
                elsewhere = [name for name in NAMES if key in (name, name.partition(".")[2])]
                candidates = (*SCALARS, *KEYS, *GROUPS)
                self._problems.append(f"{origin}: {key}: {unknown(key, candidates, elsewhere)}")
        return self._layer

    def _read_group(self, group: str, origin: str, node: yaml.Node) -> None:
        if not isinstance(node, yaml.MappingNode):
            if _text(node) is not None:
                several = group.rpartition(".")[2]
                self._problems.append(f"{origin}: {group}: must be a mapping of {several} by name")
            return
        if node.value:  # also if no name in it can be used: the names are wrong then, not missing
            self._layer[group] = Given(MENTIONED, origin)
        for name, its_origin, section in self._settings(node, f"{group}."):
            if not re.fullmatch(NAME_PATTERN, name):
                self._problems.append(
                    f"{its_origin}: {group}.?: {GROUPS[group].one}'s name is up to 40 lower-case letters, "
                    "digits, - and _, and begins with a letter or digit"
                )
                continue
            self._layer[f"{group}.{name}"] = Given(MENTIONED, its_origin)
            self._read_section(f"{group}.{name}", GROUP_KEYS[group], its_origin, section)

    def _read_section(self, section: str, keys: tuple[str, ...], origin: str, node: yaml.Node) -> None:
        if not isinstance(node, yaml.MappingNode):
            if _text(node) is not None:  # a section whose every line is commented out is null
                self._problems.append(f"{origin}: {section}: must be a mapping of settings")
            return
        for key, key_origin, value in self._settings(node, f"{section}."):
            name = f"{section}.{key}"
            if name in GROUPS:
                self._read_group(name, key_origin, value)
            elif key not in keys:
                elsewhere = [other for other in NAMES if other.endswith(f".{key}")]
                self._problems.append(f"{key_origin}: {name}: {unknown(key, keys, elsewhere)}")
            elif (given := self._given(name, key_origin, value)) is not None:
                self._layer[name] = given

    def _given(self, name: str, origin: str, node: yaml.Node) -> Given | None:
        kind = shape(name)
        text = _text(node)
        if kind is Shape.SCALAR:
            return Given(text, origin)
        if text is None:  # like a section: its items are commented out
            return None
        if kind is Shape.LIST and isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            lines = {str(number): f"{self._file}:{_line(item)}" for number, item in enumerate(node.value)}
            return Given([_text(item) for item in node.value], origin, lines)
        if kind in (Shape.MAPPING, Shape.JSON) and isinstance(node, yaml.MappingNode):
            return self._mapping(name, origin, node, is_json=kind is Shape.JSON)
        return Given(text, origin)

    def _mapping(self, name: str, origin: str, node: yaml.MappingNode, *, is_json: bool) -> Given:
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for key, item in self._entries(node, f"{name}: "):
            origins[key] = f"{self._file}:{_line(item)}"
            try:
                values[key] = _json(item, set(), JSON_DEPTH_MAX) if is_json else _text(item)
            except ValueError as error:
                self._problems.append(f"{origins[key]}: {name}: {error}")
        return Given(values, origin, origins)

    def _settings(self, node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, str, yaml.Node]]:
        """Key, origin and value of each entry. Of a key given twice the first stands; either may be meant."""
        lines: dict[str, int] = {}
        for key_node, value in node.value:
            key, line = str(key_node.value), _line(key_node)
            if not isinstance(key_node, yaml.ScalarNode) or not re.fullmatch(r"[\w.-]{1,40}", key):
                self._problems.append(
                    f"{self._file}:{line}: {prefix}?: this key cannot be the name of a setting"
                )
            elif key in lines:
                self._problems.append(
                    f"{self._file}:{line}: {prefix}{key}: given twice, first on line {lines[key]}"
                )
            else:
                lines[key] = line
                yield key, f"{self._file}:{line}", value

    def _entries(self, node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, yaml.Node]]:
        """Key and value of each item of a value. No key is told: it may be text in the wrong place."""
        lines: dict[str, int] = {}
        for key_node, value in node.value:
            line = _line(key_node)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == f"{_TAG}merge":
                self._problems.append(f"{self._file}:{line}: {prefix}this key must be text")
            elif (key := str(key_node.value)) in lines:
                self._problems.append(
                    f"{self._file}:{line}: {prefix}an item is given twice, first on line {lines[key]}"
                )
            else:
                lines[key] = line
                yield key, value


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _text(node: yaml.Node) -> Any:
    """The value for pydantic: text, None, or a value that no setting accepts."""
    if not isinstance(node, yaml.ScalarNode) or not node.tag.startswith(_TAG):
        return UNUSABLE
    return None if node.tag == f"{_TAG}null" else str(node.value)


def _json(node: yaml.Node, seen: set[int], depth: int) -> Any:
    """The JSON value that a node spells; plain text that is no JSON is that text, so `off` is not false.

    Raises:
        ValueError: It is none, or is too deep, or refers back to what it is part of or has already had: an
            alias may stand for a value that has no end, or for one too large to be written down.
    """
    if isinstance(node, yaml.ScalarNode) and node.tag.startswith(_TAG):
        return _json_scalar(node)
    is_list = isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq"
    if not is_list and not (isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map"):
        raise ValueError("tags have no meaning here")
    if id(node) in seen or not depth:
        raise ValueError("aliases have no meaning here" if depth else "is nested too deeply")
    seen.add(id(node))
    if is_list:
        return [_json(item, seen, depth - 1) for item in node.value]
    keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    if len(set(keys)) < len(node.value):
        raise ValueError("each key of a mapping must be text, and is given once")
    return {str(key.value): _json(item, seen, depth - 1) for key, item in node.value}


def _json_scalar(node: yaml.ScalarNode) -> Any:
    text = str(node.value)
    if node.style is not None:
        return text
    if node.tag == f"{_TAG}null":
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return json.loads(text, parse_constant=lambda _: text)
    except ValueError:
        return text


def _not_yaml(file: Path, error: yaml.YAMLError) -> str:
    """Where and why, without what PyYAML quotes of the file: that line may hold a key."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        why = re.sub(r"(['\"])(?!<)[^'\"]{3,}\1", "…", error.problem or "")
        return f"{file}:{error.problem_mark.line + 1}: is not YAML: {why}"
    return f"{file}: is not YAML: {getattr(error, 'reason', 'it cannot be decoded')}"
