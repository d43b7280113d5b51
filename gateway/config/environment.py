"""Reads the settings that environment variables give: `BACKBURNER_SECTION__KEY`.

For one of several it is `BACKBURNER_BACKENDS__NAME__KEY`: the name in upper case, `_` for `-`.
Values may be credentials: no message shows one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from gateway.config.names import (
    GROUP_KEYS,
    GROUPS,
    MENTIONED,
    NAMES,
    Given,
    Layer,
    Shape,
    group_of,
    shape,
    unknown,
    variable_of,
)
from gateway.config.section import NAME_PATTERN

FILE_VARIABLE = "BACKBURNER_CONFIG"
_VARIABLES = {variable_of(name): name for name in NAMES}
_GROUP_VARIABLES = {group: re.compile(rf"{variable_of(group)}__(.+)__([^_].*)") for group in GROUPS}
# Kubernetes sets these in every pod of a namespace that has a Service called backburner or backburner-….
_SERVICE_LINK = re.compile(r"BACKBURNER_(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP|SCTP)\w*)")


def read_environment(environ: Mapping[str, str], known: Iterable[str], problems: list[str]) -> Layer:
    """The settings of the environment. Unusable variables are added to `problems`.

    Args:
        known: What the file has of groups (`backends.NAME`): a variable that spells one of them is about it.
    """
    layer: Layer = {}
    for variable, value in sorted(environ.items()):
        if not variable.startswith("BACKBURNER_") or variable == FILE_VARIABLE:
            continue
        origin = f"environment {variable}"
        try:
            name = _setting(variable, known)
        except ValueError as error:
            is_link = _SERVICE_LINK.fullmatch(variable) or (variable.endswith("_PORT") and "://" in value)
            if not is_link:
                problems.append(f"{origin}: {error}")
            continue
        if (group := group_of(name)) is not None:
            layer.setdefault(group, Given(MENTIONED, origin))
            layer.setdefault(name.rpartition(".")[0], Given(MENTIONED, origin))
        match shape(name):
            case Shape.SCALAR:
                layer[name] = Given(value, origin)
            case Shape.LIST:
                layer[name] = Given([item.strip() for item in value.split(",")] if value else [], origin)
            case _:
                problems.append(f"{origin}: {name}: a mapping can only be given in the file")
    return layer


def _setting(variable: str, known: Iterable[str]) -> str:
    """The setting that a variable is for.

    Raises:
        ValueError: There is none.
    """
    if variable in _VARIABLES:
        return _VARIABLES[variable]
    for group, pattern in _GROUP_VARIABLES.items():
        if (found := pattern.fullmatch(variable)) is not None:
            return _setting_of_one(group, found[1], found[2], known)
    near = [group for group in GROUPS if variable.startswith(f"{variable_of(group)}_")]
    elsewhere = [f"{variable_of(group)}__NAME__KEY" for group in near]
    raise ValueError(unknown(variable.upper(), [] if elsewhere else _VARIABLES, elsewhere))


def _setting_of_one(group: str, spelled: str, key: str, known: Iterable[str]) -> str:
    """The same, of one of a group whose name and key are spelled so. Raises: ValueError."""
    keys = {each.upper(): each for each in GROUP_KEYS[group]}
    if key not in keys or spelled != spelled.upper():
        candidates = [f"{variable_of(group)}__{spelled.upper()}__{each}" for each in keys]
        raise ValueError(unknown(f"{variable_of(group)}__{spelled}__{key}".upper(), candidates))
    names = [one.removeprefix(f"{group}.") for one in known if group_of(one) == group]
    same = [name for name in names if name.upper().replace("-", "_") == spelled]
    if len(same) > 1:
        several = group.rpartition(".")[2]
        raise ValueError(f"the {several} {' and '.join(same)} of the file are both spelled so; rename one")
    name = same[0] if same else spelled.lower()
    if not re.fullmatch(NAME_PATTERN, name):
        raise ValueError(
            f"{GROUPS[group].one}'s name is up to 40 letters, digits and _, and begins with a letter or digit"
        )
    return f"{group}.{name}.{keys[key]}"
