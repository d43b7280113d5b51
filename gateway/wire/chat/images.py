"""Images in a chat answer: where the parts in use have them, and in which form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from gateway.wire.chat.fields import object_of

_DATA_URL = re.compile(r"data:(?:image/)?([a-zA-Z0-9.+-]*)[^,]*;base64,", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/_=\s-]+")

_HOLDERS = ("image_url", "image", "source", "inline_data", "inlineData")
"""Objects with the image in them, or texts that are it: OpenAI and most; some; Anthropic; Gemini."""
_NAMES = ("url", "b64_json", "data", "image_base64", "base64", "result")
_TYPES = ("media_type", "mime_type", "mimeType", "output_format", "format")


@dataclass(frozen=True, slots=True)
class Image:
    """One image.

    Attributes:
        given: As it was sent: a URL, or base64.
        base64: Its bytes, if they were sent.
        format: `png`, say; "" if nobody said it.
    """

    given: str
    base64: str
    format: str


def image_of(part: Any) -> Image | None:
    """The image in a part, or in an entry of a list of images."""
    if isinstance(part, str):
        return _image(part, "")
    if not isinstance(part, dict):
        return None
    for holder in (*(part.get(name) for name in _HOLDERS), part):
        fields = {"url": holder} if isinstance(holder, str) else object_of(holder)
        given = next((fields[name] for name in _NAMES if isinstance(fields.get(name), str)), "")
        kind = next((fields[name] for name in _TYPES if isinstance(fields.get(name), str)), "")
        if given and (image := _image(given, kind.rpartition("/")[2])) is not None:
            return image
    return None


def _image(given: str, kind: str) -> Image | None:
    if head := _DATA_URL.match(given):
        return Image(given, given[head.end() :], head[1].partition("+")[0] or kind)
    if re.match(r"[a-z][a-z0-9+.-]*:", given, re.IGNORECASE):
        return Image(given, "", kind)
    return Image(given, given, kind) if _BASE64.fullmatch(given) else None
