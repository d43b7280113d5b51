"""The content of an item as the content of a chat message: a string, or parts of it."""

from __future__ import annotations

from typing import Any, TypeVar

from gateway.wire.errors import Refusal, invalid

Part = dict[str, Any]
Content = str | list[Part]

_TEXT_PARTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_THOUGHTS = frozenset({"thinking", "redacted_thinking", "reasoning"})
_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}

_T = TypeVar("_T", dict[str, Any], list[Any], str)


def expect(kind: type[_T], value: Any, param: str) -> _T:
    """The value, if it has this type. Raises: Refusal."""
    if not isinstance(value, kind):
        message = f"Invalid type for '{param}': expected {_NAMES[kind]}."
        raise invalid(message, param=param, code="invalid_type")
    return value


def unsupported(param: str, what: str) -> Refusal:
    """A refusal of what chat completions cannot say."""
    return invalid(
        f"Invalid value for '{param}': {what} not supported, since this model is served by a "
        "chat-completions backend.",
        param=param,
        code="unsupported_parameter",
    )


def required(item: Part, name: str, param: str) -> str:
    """A text that must be there. Raises: Refusal."""
    place = f"{param}.{name}"
    if item.get(name) in (None, ""):
        message = f"Missing required parameter: '{place}'."
        raise invalid(message, param=place, code="missing_required_parameter")
    return expect(str, item[name], place)


def parts_of(content: Any, param: str) -> list[Part]:
    """The parts of a content that is an array. Raises: Refusal."""
    if not isinstance(content, list):
        message = f"Invalid type for '{param}': expected a string or an array."
        raise invalid(message, param=param, code="invalid_type")
    return [expect(dict, part, f"{param}.{position}") for position, part in enumerate(content)]


def content_of(content: Any, param: str) -> Content:
    """A string where there is only text (templates without images know nothing else), else parts."""
    if isinstance(content, str):
        return content
    parts = parts_of(content, param)
    if all(_is_text(part) for part in parts):
        return "\n".join(_text(part, f"{param}.{position}") for position, part in enumerate(parts))
    return [_part(part, f"{param}.{position}") for position, part in enumerate(parts)]


def spoken(part: Part, param: str) -> str:
    """What a part of an assistant's message says. Of what another backend's answer had beside its text, as a
    picture or a sound, chat can only say that it was there."""
    if _is_text(part):
        return _text(part, param)
    kind = expect(str, part.get("type"), f"{param}.type")
    said = part.get("text") or part.get("transcript")
    return said if isinstance(said, str) else "" if kind in _THOUGHTS else f"[{kind}]"


def thoughts_of(item: Part) -> list[str]:
    """The texts of a reasoning item, in whatever form a client kept them; none if it has none to read."""
    for holder in (item.get("content"), item.get("summary")):
        given = [holder] if isinstance(holder, str | dict) else holder if isinstance(holder, list) else []
        texts = [part.get("text") if isinstance(part, dict) else part for part in given]
        if found := [text for text in texts if isinstance(text, str) and text]:
            return found
    return []


def split(content: Content) -> tuple[str, list[Part]]:
    """The text of a content, and its other parts."""
    if isinstance(content, str):
        return content, []
    texts = [part["text"] for part in content if part["type"] == "text"]
    return "\n".join(texts), [part for part in content if part["type"] != "text"]


def joined(first: Content, second: Content, between: str = "\n\n") -> Content:
    """Two contents as one, text apart from text by `between`."""
    if isinstance(first, str) and isinstance(second, str):
        return between.join(filter(None, (first, second)))
    return [*_as_parts(first), *_as_parts(second)]


def _as_parts(content: Content) -> list[Part]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content


def _is_text(part: Part) -> bool:
    return isinstance(part.get("type"), str) and part["type"] in _TEXT_PARTS


def _text(part: Part, param: str) -> str:
    return expect(str, part.get("text"), f"{param}.text")


def _part(part: Part, param: str) -> Part:
    match part.get("type"):
        case kind if _is_text(part):
            return {"type": "text", "text": _text(part, param)}
        case "input_image" if part.get("image_url"):
            image: Part = {"url": expect(str, part["image_url"], f"{param}.image_url")}
            if part.get("detail"):
                image["detail"] = (
                    "high" if part["detail"] == "original" else expect(str, part["detail"], f"{param}.detail")
                )
            return {"type": "image_url", "image_url": image}
        case "input_file" if part.get("file_data") or part.get("file_id"):
            names = [name for name in ("file_data", "file_id", "filename") if part.get(name)]
            file = {name: expect(str, part[name], f"{param}.{name}") for name in names}
            return {"type": "file", "file": file}
        case "input_audio" if part.get("input_audio") or part.get("data"):
            given = part.get("input_audio") or {n: part[n] for n in ("data", "format") if n in part}
            return {"type": "input_audio", "input_audio": expect(dict, given, f"{param}.input_audio")}
        case kind:
            raise unsupported(param, f"parts of type '{kind}' without inline data are")
