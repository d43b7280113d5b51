"""docs/configuration.md: every setting, with its default, what is allowed, its flag, and what it does.

Names, defaults and bounds are read from the code, the words from config.example.yaml, which a test holds complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from gateway.config import FLAGS, GROUPS, NAMES, Settings
from gateway.config.names import GROUP_KEYS, SECTIONS
from reference.tables import WRITTEN, table

_EXAMPLE = Path(__file__).resolve().parents[1] / "config.example.yaml"
_KEY = re.compile(r"( *)([a-z_]+):(?: (.*))?")
_SCHEMA = Settings.model_json_schema()

INTRO = """
How to give a setting, the strongest first:

| where | for example |
|---|---|
| a flag, for those that have one | `--retention-s 900` |
| an environment variable | `BACKBURNER_BACKGROUND__RETENTION_S=900` |
| the file (`--config`, `BACKBURNER_CONFIG`) | `background: {retention_s: 900}` |
| the default | |

Units are in the names: `_s` seconds, `_ms` milliseconds, `_bytes` and `_bytes_max` bytes. An unknown name stops the start.
`backburner check-config --config config.yaml` prints what is in force, and where each value comes from; a mistake is
refused with its line and the reason. [config.example.yaml](../config.example.yaml) has all of this as a file to start from."""

ABOUT = {
    "": "At the top of the file, in no section.",
    "upstream": "The model server. With several, the same settings stand under `backends.NAME`: "
    "[several backends](backends.md#several-backends-and-replicas).",
    "webhooks.endpoints": "Each receiver, under a name of its own: [webhooks](webhooks.md#set-one-up).",
}


def words() -> dict[str, str]:
    """What the example says of each setting, by its full name; of groups, below the group's name."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    said: list[str] = []
    for raw in _EXAMPLE.read_text().splitlines():
        # The endpoint of the example is commented out: its lines begin with "  #".
        line = re.sub(r"^  #(?=(endpoints|  ))", "  ", raw)
        if line.strip().startswith("#"):
            said.append(line.strip().removeprefix("#").removeprefix(" "))
        elif match := _KEY.fullmatch(line):
            depth = len(match[1])
            path = [(at, name) for at, name in path if at < depth]
            path.append((depth, match[2]))
            names = [name for _, name in path if name != "billing"]
            found[".".join(names)] = " ".join(said)
            said = []
        elif not line.strip() or line.startswith("#"):
            said = []
    return found


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = _SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _allowed(schema: dict[str, Any]) -> str:
    """What a value may be, of what the model says."""
    schema = _resolved(schema)
    choices = schema.get("anyOf")
    if choices:
        return " or ".join(filter(None, (_allowed(choice) for choice in choices)))
    if "enum" in schema:
        return ", ".join(f"`{_shown(word)}`" for word in schema["enum"])
    if "const" in schema:
        return f"`{_shown(schema['const'])}`"
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    match schema.get("type"):
        case "integer" | "number" if low is not None and high is not None:
            above = "above " if "exclusiveMinimum" in schema else ""
            return f"{above}{_number(low)} to {_number(high)}"
        case "integer" | "number" if low is not None:
            return f"{_number(low)} or more"
        case "integer" | "number":
            return "a number"
        case "boolean":
            return "`true`, `false`"
        case "array":
            return "a list"
        case "object":
            return "a mapping"
        case "string" if schema.get("format") in ("path", "file-path"):
            return "a path"
        case "string":
            return "text"
        case "null":
            return "`null`"
    return ""


def _number(value: float) -> str:
    return f"{value:,}".removesuffix(".0")


def _shown(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()


def _plain(text: str) -> str:
    """Of a comment, so that Markdown takes nothing of it for its own."""
    text = text.replace("<", "&lt;").replace("*", r"\*")
    return re.sub(r"\[([^\]]*)\]", r"\\[\1\\]", text)


def _rows(model: type[Any], prefix: str, keys: tuple[str, ...]) -> Iterator[tuple[str, str, str, str]]:
    said = words()
    properties = model.model_json_schema(ref_template="#/$defs/{model}")["properties"]
    for key in keys:
        name = f"{prefix}.{key}" if prefix else key
        field = model.model_fields[key]
        default = properties[key].get("default", {})  # a mapping is made by a factory, and has none there
        shown = "required" if field.is_required() else f"`{_shown(default)}`"
        flag = f" Flag: `{FLAGS[name]}`." if name in FLAGS else ""
        text = _plain(said[name]).removeprefix("REQUIRED. ")
        yield f"`{key}`", shown, _allowed(properties[key]), text + flag


def page() -> str:
    head = ("setting", "default", "allowed", "what it does")
    parts = ["# Configuration", WRITTEN, INTRO.strip()]
    headings = [name for name in sorted({*SECTIONS, *GROUPS}) if name != "backends"]
    parts.append(" · ".join(f"[{name}](#{name.replace('.', '')})" for name in headings))
    scalars = tuple(name for name in NAMES if "." not in name)
    parts += [f"{ABOUT['']}", table(head, _rows(Settings, "", scalars))]
    for section, model in SECTIONS.items():
        keys = tuple(name.partition(".")[2] for name in NAMES if name.startswith(f"{section}."))
        about = ABOUT.get(section) or " ".join((model.__doc__ or "").split())
        parts += [f"## {section}", about, table(head, _rows(model, section, keys))]
        for name, group in GROUPS.items():
            if name.startswith(f"{section}."):
                parts += [f"## {name}", ABOUT[name], table(head, _rows(group.model, name, GROUP_KEYS[name]))]
    return "\n\n".join(parts) + "\n"
