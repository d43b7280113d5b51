"""Ids of requests."""

from __future__ import annotations

import uuid

from gateway.api.http.ids import new_request_id


def test_ids_are_uuids_of_version_4_and_differ() -> None:
    found = {new_request_id() for _ in range(1000)}
    assert len(found) == 1000
    for each in found:
        parsed = uuid.UUID(each)
        assert (parsed.version, parsed.variant, str(parsed)) == (4, uuid.RFC_4122, each)
