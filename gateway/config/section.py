"""The base of all sections, and the bounds that several of them use."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,39}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Host = Annotated[str, Field(min_length=1)]  # an empty one would listen on every address
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]
Bytes = Annotated[int, Field(ge=1024, le=64 * 2**30)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://[a-z0-9._~%\[\]:-]+")


def _as_browsers_send_it(value: str) -> str:
    origin = value.lower()
    for scheme, port in (("http", ":80"), ("https", ":443")):
        if origin.startswith(f"{scheme}://"):
            origin = origin.removesuffix(port)
    if origin != "*" and not _ORIGIN.fullmatch(origin):
        raise ValueError(
            "must be scheme://host or scheme://host:port as browsers send it, without a path, or *"
        )
    return origin


Origin = Annotated[str, AfterValidator(_as_browsers_send_it)]


class Section(BaseModel):
    """Base of every section: immutable, and a key nobody knows is an error, not a shrug."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True)
