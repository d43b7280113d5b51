"""Each module of the gateway has a test file of its name, in the room of the same name.

`wire/chat/tool_calls.py` is tried in `tests/wire/test_tool_calls.py` or `tests/wire/test_chat_tool_calls.py`.
The table says where the others are tried.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent

TRIED_IN = {
    # a stream is made whole by several modules together, and tried as a whole
    "core/test_machine_inputs.py": "wire/answers: arguments lifecycle normalise output parts silent",
    "core/test_engine_shapes.py": "wire/answers: endings item_shapes lookup readers",
    # a body is classified by what its scan has found
    "wire/test_classify.py": "wire/bodies: json_scan",
    # calls are compared as bytes, whichever class makes them
    "wire/test_requests.py": "wire: errors speech speech_responses",
    "wire/test_lessons.py": "wire: chat/speech conversation/item_lessons",
    "wire/test_replay.py": "wire/conversation: portable_items",
    # a chat answer is tried by what its client gets
    "wire/test_chat_tool_calls.py": "wire/chat: arguments tool_call_items",
    "wire/test_chat_content.py": "wire/chat: citations images parts",
    "wire/test_chat_chunks.py": "wire/chat: fields heard pieces",
    "wire/test_chat_unmapped.py": "wire: chat/known answers/notices",
    "wire/test_chat_tools.py": "wire/chat: choice",
    # a conversation, by its messages
    "wire/test_chat_messages.py": "wire/chat: details message_parts order spoken ways",
    # a failure, by a backend's words
    "wire/test_failures.py": "wire/failures: causes errorbody waits",
    "wire/test_shapes.py": "wire: tools",
    # a run is tried by its playbooks, and a kind of failure by what is done about it
    "core/test_machine.py": "core: acceptance backends call refusal upstream",
    "core/test_retry.py": "core: reason",
    # an engine is tried as a whole, by what its clients, its store and its backends see
    "engine/test_run.py": "engine: exchange",
    "engine/test_handover.py": "engine: engine",
    "engine/test_jobs.py": "engine: refusals",
    "engine/test_sweeper.py": "engine: gauges",
    "engine/test_sealer.py": "engine: credentials",
    "engine/test_outputs.py": "engine: shelf",
    "engine/test_deliveries.py": "engine: receivers",
    "acceptance/test_chat_backends.py": "engine: foreground",
    # what operators see is tried by the API that shows it, the page in a browser
    "acceptance/test_admin_api.py": "engine: circumstances operators overviews",
    "acceptance/test_admin_actions.py": "engine: actions",
    "acceptance/test_page.py": "api: admin/changes admin/filters admin/page admin/roles admin/v1 admin/views",
    # calls are tried between a real client and a real server
    "acceptance/test_retries.py": "outbound: calls tries",
    "acceptance/test_passing.py": "outbound: answer plain",
    "acceptance/test_replicas.py": "outbound: backend backends checks",
    # handlers are tried by what an unmodified client gets
    "acceptance/test_lifecycle.py": "api: ports responses router",
    "acceptance/test_turns.py": "api: chained_call",
    "acceptance/test_told_in_streams.py": "api: foreground",
    "acceptance/test_backends.py": "api: model_list",
    "acceptance/test_coded_bodies.py": "api: http/bodies",
    "acceptance/test_slow_readers.py": "api: http/event_streams",
    "api/test_slow_clients.py": "api: http/server",
    "acceptance/test_tenants.py": "api/identity: callers credential_check",
    "acceptance/test_operations.py": "api: admin/routes",
    "acceptance/test_webhooks.py": "api/admin/webhooks command/webhooks",
    # the lanes are tried against each other, and the fast one by what its peers do
    "acceptance/test_lanes.py": "api: forwarding lane/answers lane/heads",
    "api/test_lane.py": "outbound: lane/quick connection",
    "api/test_passthrough.py": "api/http/heads api/lane/connection core/quick",
    # a store is tried by its contract, and the one in a file by what is done to the file
    "core/test_echo.py": "wire/answers: echo",
    "store/test_contract.py": (
        "store: bells insight notes port refused sqlite/notes sqlite/operations sqlite/store"
    ),
    "store/test_postgres_contract.py": "store/postgres: batches insight connections notes operations",
    "store/test_postgres_store.py": "store/postgres: bells health membership",
    # gateways that push are tried by what comes through
    "store/test_peers.py": "store/postgres/peers: frames subscribers subscriptions",
    "acceptance/test_pushed.py": "store: pushes",
    "store/test_items.py": "store: item_keys",
    "store/test_outbox.py": "store: lanes",
    "store/test_sqlite.py": "store/sqlite: insight",
    "store/test_sql_is_static.py": "store: sqlite/queries postgres/queries",
    "store/test_startup.py": "store: factory sqlite/connector sqlite/connection sqlite/filesystem",
    "store/test_location.py": "store/sqlite: restore",
    "store/test_trouble.py": "store/sqlite: ballast database health read_connections upkeep",
    # settings are tried as a user gives them
    "config/test_loader.py": "config: backends conflicts environment file models names section",
    "config/test_tenants.py": "config: keyfiles publickeys",
    "acceptance/test_tracing.py": "observe: otel",
    # what happens is tried by its lines; the wiring by the command itself
    "test_logs.py": "observe/observer observe/backends observe/store logpipe",
    "test_cli.py": "app listeners command/effective command/healthcheck command/status",
    "command/test_doctor_backend.py": "command/doctor: client engines findings probes",
    "store/test_doctor_database.py": "command/doctor: database",
}
"""Where modules are tried that have no test file of their name; the comment above says why."""


def _tried_elsewhere() -> set[str]:
    found = set()
    for modules in TRIED_IN.values():
        room, _, names = modules.rpartition(": ")
        found |= {f"{room}/{name}" if room else name for name in names.split()}
    return found


def _modules() -> list[str]:
    gateway = ROOT / "gateway"
    found = (path.relative_to(gateway).with_suffix("") for path in gateway.rglob("*.py"))
    return sorted(path.as_posix() for path in found if not path.name.startswith("__"))


def _has_its_own(module: str) -> bool:
    *rooms, name = module.split("/")
    folder = ROOT / "tests" / rooms[0] if rooms else ROOT / "tests"
    names = ["_".join([*rooms[start:], name]) for start in range(1, len(rooms) + 1)] or [name]
    return any((folder / f"test_{each}.py").exists() for each in names)


def _without() -> list[str]:
    return [module for module in _modules() if not _has_its_own(module)]


def test_each_module_has_a_test_file_of_its_name() -> None:
    assert set(_without()) - _tried_elsewhere() == set(), "name the test file like the module"


def test_the_exceptions_are_needed_and_name_files_that_exist() -> None:
    assert _tried_elsewhere() - set(_without()) == set()
    for file in TRIED_IN:
        assert (ROOT / "tests" / file).exists(), file
