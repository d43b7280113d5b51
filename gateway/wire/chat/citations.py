"""Where an answer has its words from, in all the places and shapes in use, as annotations of its text.

A citation with a place in the text keeps it. Others are lists, often sent anew with each chunk, to which the
text refers by number: each source is shown once, at the first such number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.wire.chat.fields import index_of, kept, object_of

FIELDS: dict[str, str | None] = {
    "annotations": None,  # OpenAI, OpenRouter
    "citations": None,  # Perplexity, xAI: URLs
    "search_results": None,  # Perplexity, Baidu: with titles
    "web_search": None,  # GLM
    "references": None,  # Volcengine
    "search_info": "search_results",  # DashScope, Hunyuan
    "context": "citations",  # Azure, from its own search index
}
"""Path of the list inside each field of a chunk, a choice, a delta or a message."""

_URLS = ("url", "link", "uri")
_TITLES = ("title", "name", "filename", "filepath")
_FILES = ("file_id", "id", "hash", "filepath", "title", "name")
_MARKERS = ("[{}]", "[^{}]", "[doc{}]", "[ref_{}]", "【{}】")
"""References to numbered sources in texts: most; some models; Azure; DashScope; Chinese models."""

Annotation = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of a list.

    Attributes:
        number: Its place in the list, from 1.
        place: Where in the text it is cited, if it says so.
        fields: As it was sent.
    """

    number: int
    url: str
    place: tuple[int, int] | None
    fields: Annotation


def sources_of(name: str, value: Any) -> tuple[list[Source], list[Any]]:
    """The sources in a field of `FIELDS`, and what in it is none."""
    found: list[Source] = []
    rest: list[Any] = []
    inner = FIELDS[name]
    if inner is not None:
        rest.append({key: item for key, item in object_of(value).items() if key != inner})
        value = object_of(value).get(inner) if isinstance(value, dict) else value
    for number, entry in enumerate(value if isinstance(value, list) else [value], 1):
        if (source := _source(entry, number)) is not None:
            found.append(source)
        else:
            rest.append(entry)
    return found, rest


def _source(entry: Any, number: int) -> Source | None:
    if isinstance(entry, str):
        entry = {"url": entry}
    if not isinstance(entry, dict):
        return None
    # Chat completions nest a citation under its type; the Responses API does not.
    nested = object_of(entry.get(str(entry.get("type"))))
    fields = kept({**entry, **nested})
    fields.pop(str(entry.get("type")), None)
    url = _first(fields, _URLS)
    if not url and not _first(fields, _FILES):
        return None
    start, end = (index_of(fields.get(name)) for name in ("start_index", "end_index"))
    place = (start, end) if start is not None and end is not None else None
    return Source(index_of(fields.get("index")) or number, url, place, fields)


def _first(fields: Annotation, names: tuple[str, ...]) -> str:
    return next((value for name in names if isinstance(value := fields.get(name), str) and value), "")


@dataclass(slots=True)
class Citations:
    """The sources of one answer that its text does not show yet."""

    _placed: dict[tuple[str, tuple[int, int]], Source] = field(default_factory=dict)
    _listed: dict[str, Source] = field(default_factory=dict)
    _shown: set[Any] = field(default_factory=set)

    def add(self, source: Source) -> None:
        """One more, or one that was there before."""
        key = source.url or _first(source.fields, _FILES)
        if source.place is not None:
            if (key, source.place) not in self._shown:
                self._placed[key, source.place] = source
        elif key not in self._shown:
            earlier = self._listed.get(key)
            # Perplexity sends the URLs in one list, and their titles in another.
            both = {**source.fields, **(earlier.fields if earlier else {})}
            self._listed[key] = Source(source.number, source.url, None, both)

    def __bool__(self) -> bool:
        return bool(self._placed or self._listed)

    def annotations(self, text: str) -> list[Annotation]:
        """The sources as annotations of this text; they count as shown from then on."""
        placed = [_annotation(source, source.place) for source in self._placed.values() if source.place]
        self._shown |= self._placed.keys() | {key for key, _ in self._placed}
        listed = [
            _annotation(source, _cited_at(source.number, text))
            for key, source in self._listed.items()
            if key not in self._shown
        ]
        self._shown |= self._listed.keys()
        self._placed, self._listed = {}, {}
        return placed + listed


def _annotation(source: Source, place: tuple[int, int]) -> Annotation:
    """The citation with every key that the SDKs' types require, and the backend's further facts."""
    fields = source.fields
    title = _first(fields, _TITLES)
    if source.url:
        shown = {"type": "url_citation", "url": source.url, "title": title or source.url}
        return {**fields, **shown, "start_index": place[0], "end_index": place[1]}
    file = _first(fields, _FILES)
    return {**fields, "type": "file_citation", "file_id": file, "filename": title or file, "index": place[0]}


def _cited_at(number: int, text: str) -> tuple[int, int]:
    """Where a text first refers to a source by its number; its end, if it does not."""
    for marker in _MARKERS:
        if (at := text.find(shown := marker.format(number))) >= 0:
            return at, at + len(shown)
    return len(text), len(text)
