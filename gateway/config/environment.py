"""Reads the settings that environment variables give: `BACKBURNER_SECTION__KEY`.

For one of several backends it is `BACKBURNER_BACKENDS__NAME__KEY`: the name in upper case, `_` for `-`.
Values may be credentials: no message shows one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from gateway.config.models import NAME_PATTERN
from gateway.config.names import (
    BACKEND_KEYS,
    MENTIONED,
    NAMES,
    Given,
    Layer,
    Shape,
    shape,
    unknown,
    variable_of,
)

FILE_VARIABLE = "BACKBURNER_CONFIG"
_VARIABLES = {variable_of(name): name for name in NAMES}
_OF_A_BACKEND = re.compile(r"BACKBURNER_BACKENDS__(.+)__([^_].*)")
# Kubernetes sets these in every pod of a namespace that has a Service called backburner or backburner-….
_SERVICE_LINK = re.compile(r"BACKBURNER_(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP|SCTP)\w*)")


def read_environment(environ: Mapping[str, str], known_backends: Iterable[str], problems: list[str]) -> Layer:
    """What the environment gives; the variables that cannot be used are added to `problems`.

    Args:
        known_backends: Names of backends in the file: a variable that spells one of them is about it.
    """
    layer: Layer = {}
    for variable, value in sorted(environ.items()):
        if not variable.startswith("BACKBURNER_") or variable == FILE_VARIABLE:
            continue
        origin = f"environment {variable}"
        try:
            name = _setting(variable, known_backends)
        except ValueError as error:
            is_link = _SERVICE_LINK.fullmatch(variable) or (variable.endswith("_PORT") and "://" in value)
            if not is_link:
                problems.append(f"{origin}: {error}")
            continue
        if name.startswith("backends."):
            layer.setdefault("backends", Given(MENTIONED, origin))
            layer.setdefault(name.rpartition(".")[0], Given(MENTIONED, origin))
        match shape(name):
            case Shape.SCALAR:
                layer[name] = Given(value, origin)
            case Shape.LIST:
                layer[name] = Given([item.strip() for item in value.split(",")] if value else [], origin)
            case _:
                problems.append(f"{origin}: {name}: a mapping can only be given in the file")
    return layer


def _setting(variable: str, known_backends: Iterable[str]) -> str:
    """The setting that a variable is for.

    Raises:
        ValueError: There is none.
    """
    if variable in _VARIABLES:
        return _VARIABLES[variable]
    found = _OF_A_BACKEND.fullmatch(variable)
    if found is None:
        elsewhere = ["BACKBURNER_BACKENDS__NAME__KEY"] if variable.startswith("BACKBURNER_BACKENDS_") else []
        raise ValueError(unknown(variable.upper(), [] if elsewhere else _VARIABLES, elsewhere))
    spelled, key = found.groups()
    keys = {each.upper(): each for each in BACKEND_KEYS}
    if key not in keys or spelled != spelled.upper():
        candidates = [f"BACKBURNER_BACKENDS__{spelled.upper()}__{each}" for each in keys]
        raise ValueError(unknown(variable.upper(), candidates))
    same = [name for name in known_backends if name.upper().replace("-", "_") == spelled]
    if len(same) > 1:
        raise ValueError(f"the backends {' and '.join(same)} of the file are both spelled so; rename one")
    name = same[0] if same else spelled.lower()
    if not re.fullmatch(NAME_PATTERN, name):
        raise ValueError(
            "a backend's name is up to 40 letters, digits and _, and begins with a letter or digit"
        )
    return f"backends.{name}.{keys[key]}"
