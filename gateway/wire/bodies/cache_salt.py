"""A `cache_salt` for each tenant: an engine with a prefix cache then keeps it apart for each of them.

Otherwise anybody can find out, by how long a prompt takes, whether somebody else has asked the same
(CVE-2025-46570).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Generator
from typing import Final

import orjson

from gateway.wire.bodies.json_scan import VALUES_MAX, Keys, is_object, look_over
from gateway.wire.errors import invalid
from gateway.wire.requests import written

FIELD: Final = "cache_salt"

_FIELD = Keys(FIELD)
_BLANKS: Final = b" \t\r\n"


def salt_of(tenant: bytes, own: object) -> str:
    """64 hexadecimal digits that nobody can guess who does not know the tenant's 32 bytes.

    Args:
        own: The salt that the caller chose, who may keep users of its own apart.
    """
    chosen = own.encode() if isinstance(own, str) else b""
    return hmac.new(tenant, b"cache_salt\0" + chosen, hashlib.sha256).hexdigest()


def salted(body: bytes, tenant: bytes) -> Generator[None, None, bytes]:
    """A plain body with its tenant's salt; what is no JSON object, as it came. The pauses are for others.

    Nothing but the salt changes, unless the caller has sent one: then the body is written anew.

    Raises:
        Refusal: It has a salt that cannot be read in one way only.
    """
    if b"\0" in body[:4]:  # UTF-16 or UTF-32, which Python reads as JSON
        raise invalid("The body of your request must be UTF-8.", code="invalid_json")
    end = body.rfind(b"}")
    if not is_object(body) or body[end + 1 :].strip(_BLANKS):
        return body
    if (yield from _FIELD.mentioned_in(body)):
        outline = yield from look_over(body)
        if outline.values > VALUES_MAX:
            message = f"The lists and objects of a request with '{FIELD}' have more than {VALUES_MAX} values."
            raise invalid(message, param=FIELD, code="too_many_values")
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError:
            message = f"We could not parse the JSON body of your request, which has '{FIELD}'."
            raise invalid(message, param=FIELD, code="invalid_json") from None
        if FIELD in parsed:
            return written({**parsed, FIELD: salt_of(tenant, parsed[FIELD])})
    fields = body[:end].rstrip(_BLANKS)
    comma = b"" if fields.endswith(b"{") else b","
    return b'%b%b"%b":"%b"%b' % (fields, comma, FIELD.encode(), salt_of(tenant, None).encode(), body[end:])
