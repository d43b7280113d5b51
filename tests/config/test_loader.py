"""The settings: precedence, and that every mistake is told once, with its place and without secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from gateway.config import (
    BACKEND_KEYS,
    FLAGS,
    NAMES,
    ConfigError,
    ServerSettings,
    Settings,
    UpstreamSettings,
    load,
    load_with_origins,
)

ROOT = Path(__file__).parents[2]
URL = "http://model:8000/v1"
SECRET = "sk-very-secret"
NO_ENVIRONMENT: Mapping[str, str] = {}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings file goes: `config.yaml` in the working directory."""
    monkeypatch.chdir(tmp_path)
    return Path("config.yaml")


def problems(
    text: str | bytes | None = None,
    environ: Mapping[str, str] = NO_ENVIRONMENT,
    flags: dict[str, Any] | None = None,
) -> list[str]:
    file = None
    if text is not None:
        file = Path("config.yaml")
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load(flags or {}, environ=environ, file=file)
    assert str(caught.value) == "\n".join(caught.value.problems)
    assert all("\n" not in problem for problem in caught.value.problems)
    assert SECRET not in str(caught.value)
    return caught.value.problems


def upstream(text: str = "") -> str:
    """A file whose first two lines are sound."""
    return f"upstream:\n  url: {URL}\n{text}"


def only(settings: Settings) -> UpstreamSettings:
    """The backend of settings that have one."""
    (backend,) = settings.all_backends.values()
    return backend


# Precedence


def test_flags_win_over_environment_over_file_over_defaults(file: Path) -> None:
    file.write_text(upstream("server: {host: file, admin_host: file, port: 1, admin_port: 2}\n"))
    settings, origins = load_with_origins(
        {"server.host": "flag", "server.port": None},
        environ={"BACKBURNER_SERVER__HOST": "env", "BACKBURNER_SERVER__ADMIN_HOST": "env"},
        file=file,
    )
    server = settings.server
    assert (server.host, server.admin_host, server.port, server.keepalive_timeout_s) == ("flag", "env", 1, 75)
    assert origins == {
        "upstream.url": "config.yaml:2",
        "server.host": "--host",
        "server.admin_host": "environment BACKBURNER_SERVER__ADMIN_HOST",
        "server.port": "config.yaml:3",
        "server.admin_port": "config.yaml:3",
    }


def test_every_setting_can_be_given_in_the_environment() -> None:
    defaults = Settings(upstream=UpstreamSettings(url=URL))
    environ = {}
    for name in NAMES:
        value = attrgetter(name)(defaults)
        if value is not None and not isinstance(value, dict):
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            environ[f"BACKBURNER_{name.replace('.', '__')}".upper()] = text
    without = {name for name in NAMES if f"BACKBURNER_{name.replace('.', '__')}".upper() not in environ}
    keys = {f"upstream.{key}" for key in ("api_key", "api_key_file", "api_key_env")}
    mappings = {f"upstream.{key}" for key in ("rename", "headers", "set_fields")}
    mappings |= {"tenants.keys", "tenants.tiers_allowed"}
    of_modes = {
        f"tenants.{key}" for key in ("header", "jwt_keys_file", "jwt_issuer", "jwt_audience", "keys_file")
    }
    secrets = {
        f"server.admin_{which}_{place}" for which in ("token", "read_token") for place in ("file", "env")
    }
    secrets |= {"tenants.pepper", "tenants.pepper_file", "credentials.sealing_keys_file"}
    scalars = {"default_backend", "request_webhooks.metadata_key", "store.url", "tracing.endpoint"}
    scalars |= {"store.peer_listen", "store.peer_address"}
    assert without == scalars | keys | mappings | of_modes | secrets
    assert load({}, environ=environ, file=None) == defaults


def test_backburner_config_names_the_file_unless_a_flag_does(file: Path) -> None:
    file.write_text(upstream("server: {port: 1}\n"))
    Path("other.yaml").write_text(upstream("server: {port: 2}\n"))
    environ = {"BACKBURNER_CONFIG": "other.yaml"}
    assert load({}, environ=environ, file=None).server.port == 2
    assert load({}, environ=environ, file=file).server.port == 1


def test_yaml_text_is_read_as_the_setting_needs_it(file: Path) -> None:
    file.write_text(
        upstream(
            "  api_key: 12345\nserver: {port: '0123', admin_port: 1_000}\nbackground: {partial_output: yes}\n"
        )
    )
    settings = load({}, environ=NO_ENVIRONMENT, file=file)
    assert (settings.server.port, settings.server.admin_port) == (123, 1000)
    assert settings.background.partial_output is True
    assert only(settings).read_api_key() == "12345"


def test_a_section_with_every_line_commented_out_is_left_to_its_defaults(file: Path) -> None:
    file.write_text(upstream("server:\n  # port: 1\n"))
    assert load({}, environ=NO_ENVIRONMENT, file=file).server.port == 9000


# Mistakes in one value


def test_a_value_out_of_bounds_names_line_and_value(file: Path) -> None:
    assert problems(upstream("background:\n  # a comment\n  retention_s: -5\n")) == [
        "config.yaml:5: background.retention_s: Input should be greater than 0 (got -5)"
    ]


def test_a_wrong_value_names_its_variable_or_its_flag() -> None:
    found = problems(
        environ={"BACKBURNER_UPSTREAM__URL": URL, "BACKBURNER_BACKGROUND__RETENTION_S": "soon"},
        flags={"server.port": "70000"},
    )
    assert found == [
        "--port: server.port: Input should be less than or equal to 65535 (got 70000)",
        "environment BACKBURNER_BACKGROUND__RETENTION_S: background.retention_s: "
        "Input should be a valid number, unable to parse string as a number (got soon)",
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("server: {port: true}", "server.port: Input should be a valid integer"),
        ("server: {port: 1:30}", "server.port: Input should be a valid integer"),
        ("server: {port: [1]}", "(got a list, mapping or tag)"),
        ("server: {port: !number 1}", "(got a list, mapping or tag)"),
        ("server: {port: null}", "(got null)"),
        ("server: {host: ''}", "server.host: String should have at least 1 character (got '')"),
        ("server: {drain_timeout_s: .nan}", "server.drain_timeout_s: Input should be a valid number"),
        ("server: {drain_timeout_s: nan}", "server.drain_timeout_s: Input should be"),
        ("server: {drain_timeout_s: inf}", "server.drain_timeout_s: Input should be"),
        ("log: {level: off}", "log.level: Input should be 'debug', 'info', 'warning' or 'error' (got off)"),
        ("store: {database: ''}", "store.database: must name a file, not a directory (got '')"),
        ('log: {level: "in\\nfo"}', r"(got 'in\nfo')"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(file: Path, line: str, complaint: str) -> None:
    (problem,) = problems(upstream(line))
    assert problem.startswith("config.yaml:3: ")
    assert complaint in problem


def test_all_problems_are_told_at_once(file: Path) -> None:
    found = problems(
        "server:\n  port: x\n  prot: 1\nstream: {readers_max: 10, heartbeat_s: 0}\nstore: 5\n",
        {"BACKBURNER_LOG__LEVEL": "loud", "BACKBURNER_LOGLEVEL": "info"},
        {"server.admin_port": "-1"},
    )
    assert [problem.rpartition(" (got")[0] or problem for problem in found] == [
        "environment BACKBURNER_LOGLEVEL: unknown setting; did you mean 'BACKBURNER_LOG__LEVEL'?",
        "config.yaml:3: server.prot: unknown setting; did you mean 'port'?",
        "config.yaml:5: store: must be a mapping of settings",
        "config.yaml:2: server.port: Input should be a valid integer, unable to parse string as an integer",
        "--admin-port: server.admin_port: Input should be greater than or equal to 0",
        "upstream.url is required: give --upstream http://host:8000/v1, BACKBURNER_UPSTREAM__URL, "
        "or upstream.url in the file",
        "config.yaml:4: stream.heartbeat_s: Input should be greater than 0",
        "environment BACKBURNER_LOG__LEVEL: log.level: Input should be 'debug', 'info', 'warning' or 'error'",
        "config.yaml:4: stream.readers_per_tenant_max (256) is larger than stream.readers_max (10): "
        "the limit on all readers is met first",
    ]


def test_a_conflict_with_a_value_that_is_itself_wrong_is_not_invented(file: Path) -> None:
    (problem,) = problems(upstream("background: {queue_max: lots, queue_per_tenant_max: 20000}\n"))
    assert "background.queue_max: Input should be a valid integer" in problem


# Names


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            "background:\n  retentoin_s: 5\n",
            "config.yaml:4: background.retentoin_s: unknown setting; did you mean 'retention_s'?",
        ),
        ("backgruond: {}\n", "config.yaml:3: backgruond: unknown setting; did you mean 'background'?"),
        (
            "retention_s: 5\n",
            "config.yaml:3: retention_s: unknown setting; did you mean 'background.retention_s'?",
        ),
        (
            "store:\n  flush_ms: 5\n",
            "config.yaml:4: store.flush_ms: unknown setting; did you mean 'background.flush_ms'?",
        ),
        ("colour: red\n", "config.yaml:3: colour: unknown setting"),
        ("log:\n  ? [a, b]\n  : 1\n", "config.yaml:4: log.?: this key cannot be the name of a setting"),
    ],
)
def test_an_unknown_key_is_refused_with_its_line(file: Path, lines: str, problem: str) -> None:
    assert problems(upstream(lines)) == [problem]


def test_a_key_given_twice_is_refused(file: Path) -> None:
    assert problems(upstream("log:\n  level: info\n  level: debug\nlog:\n  format: text\n")) == [
        "config.yaml:5: log.level: given twice, first on line 4",
        "config.yaml:6: log: given twice, first on line 3",
    ]


@pytest.mark.parametrize(
    ("variable", "problem"),
    [
        (
            "BACKBURNER_BACKGROUND__RETENTION",
            "environment BACKBURNER_BACKGROUND__RETENTION: unknown setting; "
            "did you mean 'BACKBURNER_BACKGROUND__RETENTION_S'?",
        ),
        (
            "BACKBURNER_server__port",
            "environment BACKBURNER_server__port: unknown setting; did you mean 'BACKBURNER_SERVER__PORT'?",
        ),
        ("BACKBURNER_PORT", "environment BACKBURNER_PORT: unknown setting; did you mean"),
        ("BACKBURNER_ZZZ", "environment BACKBURNER_ZZZ: unknown setting"),
    ],
)
def test_an_unknown_variable_is_refused_by_name_only(variable: str, problem: str) -> None:
    (found,) = problems(environ={"BACKBURNER_UPSTREAM__URL": URL, variable: SECRET})
    assert found.startswith(problem)


def test_variables_that_kubernetes_makes_for_a_service_named_backburner_are_not_ours() -> None:
    links = {
        "BACKBURNER_SERVICE_HOST": "10.0.0.1",
        "BACKBURNER_SERVICE_PORT": "9000",
        "BACKBURNER_SERVICE_PORT_HTTP": "9000",
        "BACKBURNER_PORT": "tcp://10.0.0.1:9000",
        "BACKBURNER_PORT_9000_TCP": "tcp://10.0.0.1:9000",
        "BACKBURNER_PORT_9000_TCP_ADDR": "10.0.0.1",
        "BACKBURNER_ADMIN_SERVICE_HOST": "10.0.0.2",
        "BACKBURNER_ADMIN_PORT": "tcp://10.0.0.2:9001",
    }
    load({}, environ={"BACKBURNER_UPSTREAM__URL": URL, **links}, file=None)


# The file as a whole


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "config.yaml: is empty; it needs at least the url of an upstream"),
        ("# nothing\n", "config.yaml: is empty; it needs at least the url of an upstream"),
        ("\n- a\n- b\n", "config.yaml:2: must be a mapping of sections"),
        ("upstream\n", "config.yaml:1: must be a mapping of sections"),
        ("a: 1\n---\nb: 2\n", "config.yaml:2: is not YAML: but found another document"),
        (
            "log:\n\tlevel: info\n",
            "config.yaml:2: is not YAML: found character '\\t' that cannot start any token",
        ),
        (b"\xff\xfe\xff", "config.yaml: is not YAML: "),
        (b"a: \x00", "config.yaml: is not YAML: special characters are not allowed"),
        ("a: " + "[" * 5000, "config.yaml: is not YAML that can be read: it is nested too deeply"),
    ],
)
def test_a_file_that_says_nothing_usable_is_the_only_problem_told(
    file: Path, content: str | bytes, problem: str
) -> None:
    (found,) = problems(content, {"BACKBURNER_SERVER__PORT": "x"})
    assert found.startswith(problem)


def test_a_file_that_cannot_be_read_says_why(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"^config\.yaml: cannot be read: No such file or directory$"):
        load({}, environ={"BACKBURNER_CONFIG": "config.yaml"}, file=None)
    file.mkdir()
    with pytest.raises(ConfigError, match=r"^config\.yaml: cannot be read: Is a directory$"):
        load({}, environ=NO_ENVIRONMENT, file=file)


# Settings that do not go together


@pytest.mark.parametrize(
    ("lines", "line", "names"),
    [
        (
            "background:\n  event_bytes_max: 80000000\n",
            4,
            "background.event_bytes_max background.events_bytes_max",
        ),
        (
            "background:\n  events_bytes_max: 8000000000\n",
            4,
            "background.events_bytes_max store.database_bytes_max",
        ),
        ("background:\n  body_bytes_max: 80000000\n", 4, "background.body_bytes_max server.body_bytes_max"),
        ("store:\n  wal_bytes_max: 2048\n", 4, "store.wal_truncate_bytes store.wal_bytes_max"),
        ("background:\n  queue_max: 10\n", 4, "background.queue_per_tenant_max background.queue_max"),
        ("stream:\n  readers_max: 20\n", 4, "stream.readers_per_tenant_max stream.readers_max"),
        (
            "stream:\n  readers_per_tenant_max: 2\n",
            4,
            "stream.readers_per_response_max stream.readers_per_tenant_max",
        ),
        ("stream:\n  tails_bytes_max: 2000\n", 4, "stream.tail_bytes_max stream.tails_bytes_max"),
        (
            "background:\n  unflushed_total_bytes_max: 100000\n",
            4,
            "background.unflushed_bytes_max background.unflushed_total_bytes_max",
        ),
        ("server:\n  port: 9001\n", 4, "server.port server.admin_port"),
        (
            "server:\n  admin_port: 9000\n  host: 10.0.0.5\n  admin_host: 0.0.0.0\n",
            4,
            "server.port server.admin_port",
        ),
        ("server:\n  admin_port: 9000\n  host: localhost\n", 4, "server.port server.admin_port"),
        ("server:\n  cors_origins: ['*', 'http://a']\n", 4, "server.cors_origins"),
        (
            "server:\n  cors_credentials: true\n  cors_origins: ['*']\n",
            4,
            "server.cors_credentials server.cors_origins",
        ),
    ],
)
def test_an_unreachable_combination_names_both_settings_and_a_line(
    file: Path, lines: str, line: int, names: str
) -> None:
    (problem,) = problems(upstream(lines))
    assert problem.startswith(f"config.yaml:{line}: ")
    assert all(name in problem for name in names.split())


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://UI.example", "https://ui.example"),
        ("https://ui.example:443", "https://ui.example"),
        ("http://ui.example:80", "http://ui.example"),
        ("http://ui.example:443", "http://ui.example:443"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("tauri://localhost", "tauri://localhost"),
        ("*", "*"),
    ],
)
def test_an_origin_is_what_browsers_send(file: Path, text: str, origin: str) -> None:
    file.write_text(upstream(f"server: {{cors_origins: ['{text}']}}\n"))
    assert load({}, environ=NO_ENVIRONMENT, file=file).server.cors_origins == (origin,)


@pytest.mark.parametrize(
    "text", ["ui.example", "https://ui.example/", "https://*.example", "null", "https://", "https://a b", ""]
)
def test_what_no_browser_sends_as_an_origin_is_refused(file: Path, text: str) -> None:
    (problem,) = problems(upstream(f"server:\n  cors_origins: ['{text}']\n"))
    assert problem.startswith("config.yaml:4: server.cors_origins: ")
    assert "scheme://host" in problem


def test_a_body_larger_than_the_database_is_refused_as_well(file: Path) -> None:
    text = "server: {body_bytes_max: 100000}\nbackground: {body_bytes_max: 100000, event_bytes_max: 2000,\n"
    found = problems(upstream(text + "  events_bytes_max: 3000}\nstore: {database_bytes_max: 50000}\n"))
    assert found == [
        "config.yaml:4: background.body_bytes_max (100000) is larger than store.database_bytes_max (50000): "
        "one body would not fit the database"
    ]


@pytest.mark.parametrize(
    ("store", "complaint"),
    [
        ("url: 'postgresql://db/x', database: other.db", "store.database is for the SQLite file"),
        ("url: 'postgresql://db/x', ballast_bytes: 0", "store.ballast_bytes is for the SQLite file"),
        ("pooler: true", "store.pooler is for a PostgreSQL database"),
        ("peer_listen: '127.0.0.1:1'", "store.peer_listen is for a PostgreSQL database"),
        (
            "url: 'postgresql://db/x', peer_address: 'a:1'",
            "where store.peer_listen is reached, which is not given",
        ),
        ("url: 'postgresql://db/x', peer_listen: '0.0.0.0:1'", "is on every address (0.0.0.0)"),
        ("url: 'postgresql://db/x', peer_listen: '[::]:1'", "is on every address (::)"),
        (
            "url: 'postgresql://db/x'",
            "upstream is called with its callers' credentials, and store.url is shared",
        ),
    ],
)
def test_settings_that_do_not_fit_the_store_are_refused(file: Path, store: str, complaint: str) -> None:
    found = problems(upstream(f"store: {{{store}}}\n"))
    assert any(complaint in problem for problem in found)


@pytest.mark.parametrize(
    "text", ["host", "host:", ":1", "host:65536", "::1:80", "http://host:1", "[host]:1", "a b:1"]
)
def test_where_gateways_reach_each_other_is_a_host_and_a_port(file: Path, text: str) -> None:
    for key in ("peer_listen", "peer_address"):
        found = problems(upstream(f"store: {{url: 'postgresql://db/x', {key}: '{text}'}}\n"))
        assert any(f"store.{key}: must " in problem for problem in found)


@pytest.mark.parametrize(
    "lines",
    ["server: {port: 0, admin_port: 0}", "server: {port: 9000, admin_port: 9000, admin_host: 127.0.0.2}"],
)
def test_listeners_that_do_not_meet_are_fine(file: Path, lines: str) -> None:
    file.write_text(upstream(lines))
    load({}, environ=NO_ENVIRONMENT, file=file)


def test_the_highest_origin_of_a_conflict_is_named(file: Path) -> None:
    (problem,) = problems(
        upstream("server: {port: 9001, admin_port: 9005}\n"), flags={"server.admin_port": "9001"}
    )
    assert (
        problem
        == "--admin-port: server.port and server.admin_port are both 9001 on one host: each needs its own"
    )


@pytest.mark.parametrize(
    ("url", "host", "name"),
    [
        ("http://127.0.0.1:9000/v1", "127.0.0.1", "server.port"),
        ("http://localhost:9000", "127.0.0.1", "server.port"),
        ("http://localhost:9000", "0.0.0.0", "server.port"),
        ("http://[::1]:9000", "::", "server.port"),
        ("http://GATE:9000", "gate", "server.port"),
        ("http://127.0.0.1:9001/v1", "127.0.0.1", "server.admin_port"),
    ],
)
def test_an_upstream_that_is_the_gateway_itself_is_refused(url: str, host: str, name: str) -> None:
    (problem,) = problems(flags={"upstream.url": url, "server.host": host})
    assert problem.startswith(f"--upstream: upstream.url is where {name} (")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://model:9000", "http://127.0.0.2:9000"])
def test_an_upstream_elsewhere_is_fine(url: str) -> None:
    assert only(load({"upstream.url": url}, environ=NO_ENVIRONMENT, file=None)).url == url


def test_settings_made_in_code_are_checked_too() -> None:
    upstream = UpstreamSettings(url=URL)
    with pytest.raises(ValidationError, match=r"server\.port and server\.admin_port are both 1"):
        Settings(upstream=upstream, server=ServerSettings(port=1, admin_port=1))


def test_settings_made_in_code_show_no_key_when_they_fail() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"upstream": {"url": URL, "api_key": [SECRET]}})
    assert SECRET not in str(caught.value)


# The upstream and its key


def test_a_missing_upstream_says_how_to_give_one() -> None:
    assert problems() == [
        "upstream.url is required: give --upstream http://host:8000/v1, BACKBURNER_UPSTREAM__URL, "
        "or upstream.url in the file"
    ]


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@host/v1",
        f"http://host/v1?key={SECRET}",
        f"http://host/v1#{SECRET}",
        f"http://user:{SECRET}",
        f"{SECRET}",
        "ftp://host",
        "http:///v1",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_and_not_repeated(url: str) -> None:
    (problem,) = problems(flags={"upstream.url": url})
    assert problem.startswith("--upstream: upstream.url: must ")
    assert url not in problem


@pytest.mark.parametrize(
    "text",
    [
        upstream(f"  api_key: {SECRET} and more\n"),
        upstream(f"  api_key: [{SECRET}]\n"),
        upstream(f"  api_key: {{{SECRET}: 1}}\n"),
        upstream(f"  api_key: !{SECRET} x\n"),
        upstream(f"  api_key: *{SECRET}\n"),
        upstream(f"  api_key: &{SECRET}\n  : [\n"),
        upstream(f'  api_key: "{SECRET}\n'),
        upstream(f"  api_key: {SECRET}: x\n"),
        upstream(f"  api_key {SECRET}: x\n"),
        upstream(f"  api-key: {SECRET}\n"),
        upstream(f"  api_key: a\n  api_key: {SECRET}\n"),
        f"upstream: {SECRET}\n",
        f"{SECRET}\n",
        upstream(f"  api_key: {SECRET}\nserver: {{port: 9001}}\n"),
        upstream(f"  api_key: {SECRET}\n  concurrency_max: 0\n"),
    ],
)
def test_no_mistake_around_a_key_shows_it(file: Path, text: str) -> None:
    assert all(problem.startswith(("config.yaml", "upstream.url is required")) for problem in problems(text))


def test_an_empty_key_is_refused() -> None:
    (problem,) = problems(environ={"BACKBURNER_UPSTREAM__URL": URL, "BACKBURNER_UPSTREAM__API_KEY": " "})
    assert problem.startswith("environment BACKBURNER_UPSTREAM__API_KEY: upstream.api_key: must be one line")


def test_the_key_comes_from_the_setting_or_the_file_or_nowhere(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(f"  {SECRET}\n")
    key_file.chmod(0o600)
    assert UpstreamSettings(url=URL).read_api_key() is None
    environ = {"BACKBURNER_UPSTREAM__URL": URL, "BACKBURNER_UPSTREAM__API_KEY": f"{SECRET}\n"}
    settings = load({}, environ=environ, file=None)
    assert only(settings).read_api_key() == SECRET
    assert SECRET not in repr(settings)
    assert SECRET not in settings.model_dump_json()
    assert UpstreamSettings(url=URL, api_key_file=key_file).read_api_key() == SECRET


def test_a_key_and_a_key_file_together_are_refused(file: Path) -> None:
    key_file = Path("key")
    key_file.write_text(SECRET)
    key_file.chmod(0o400)
    assert problems(upstream(f"  api_key: {SECRET}\n"), flags={"upstream.api_key_file": "key"}) == [
        "--api-key-file: upstream.api_key and upstream.api_key_file are both given: only one key can be sent"
    ]


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o666])
def test_a_key_file_that_others_can_read_is_refused_with_its_mode(file: Path, mode: int) -> None:
    key_file = Path("key")
    key_file.write_text(SECRET)
    key_file.chmod(mode)
    (problem,) = problems(upstream("  api_key_file: key\n"))
    assert problem == (
        "config.yaml:3: upstream.api_key_file: can be read by everybody "
        f"(mode 0{mode:o}): chmod 600 it (got key)"
    )


@pytest.mark.parametrize(
    "content", ["", "\n", f"{SECRET} {SECRET}", f"{SECRET}\n{SECRET}", f"{SECRET}\u00e9"]
)
def test_a_key_file_without_one_key_is_refused(file: Path, content: str) -> None:
    key_file = Path("key")
    key_file.write_text(content)
    key_file.chmod(0o600)
    (problem,) = problems(upstream("  api_key_file: key\n"))
    assert problem.startswith("config.yaml:3: upstream.api_key_file: must be one line of printable ASCII")


def test_a_key_file_that_cannot_be_read_is_refused(file: Path) -> None:
    (problem,) = problems(upstream("  api_key_file: key\n"))
    assert problem.endswith("upstream.api_key_file: cannot be read: No such file or directory (got key)")
    (problem,) = problems(upstream("  api_key_file: .\n"))
    assert problem.endswith("upstream.api_key_file: is not a regular file (got .)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_a_key_file_that_we_may_not_read_is_refused(file: Path) -> None:
    Path("key").touch(mode=0o000)
    (problem,) = problems(upstream("  api_key_file: key\n"))
    assert problem.endswith("upstream.api_key_file: cannot be read: Permission denied (got key)")


# What one backend may be told


def test_lists_and_mappings_come_from_the_file(file: Path) -> None:
    file.write_text(
        upstream(
            "  replicas: ['http://b:8000/v1/']\n  models:\n    - llama-*\n    - '0123'\n"
            "  rename: {gpt-4o: llama-3}\n  headers:\n    X-Team: search\n  drop_fields: [user]\n"
        )
    )
    backend = only(load({}, environ=NO_ENVIRONMENT, file=file))
    assert backend.urls == (URL, "http://b:8000/v1")
    assert backend.models == ("llama-*", "0123")
    assert backend.rename == {"gpt-4o": "llama-3"}
    assert {name: value.get_secret_value() for name, value in backend.headers.items()} == {"X-Team": "search"}
    assert backend.drop_fields == ("user",)


def test_a_list_or_mapping_with_every_line_commented_out_is_left_to_its_default(file: Path) -> None:
    file.write_text(upstream("  models:\n    # - a\n  headers:\n    # X-A: b\n  set_fields: null\n"))
    assert only(load({}, environ=NO_ENVIRONMENT, file=file)) == UpstreamSettings(url=URL)


def test_lists_in_the_environment_have_commas() -> None:
    environ = {
        "BACKBURNER_UPSTREAM__URL": URL,
        "BACKBURNER_UPSTREAM__MODELS": "llama-*, qwen3",
        "BACKBURNER_UPSTREAM__REPLICAS": "",
        "BACKBURNER_UPSTREAM__DROP_FIELDS": "user",
    }
    backend = only(load({}, environ=environ, file=None))
    assert (backend.models, backend.replicas, backend.drop_fields) == (("llama-*", "qwen3"), (), ("user",))


@pytest.mark.parametrize("key", ["RENAME", "HEADERS", "SET_FIELDS"])
def test_a_mapping_in_the_environment_is_refused(key: str) -> None:
    variable = f"BACKBURNER_UPSTREAM__{key}"
    assert problems(environ={"BACKBURNER_UPSTREAM__URL": URL, variable: SECRET}) == [
        f"environment {variable}: upstream.{key.lower()}: a mapping can only be given in the file"
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20", 20),
        ("-0.5", -0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("null", None),
        ("'20'", "20"),
        ("off", "off"),
        ("2024-01-01", "2024-01-01"),
        ("0x10", "0x10"),
        (".nan", ".nan"),
        ("NaN", "NaN"),
        ("[1, {a: [true, no]}]", [1, {"a": [True, "no"]}]),
    ],
)
def test_a_forced_field_has_the_json_value_that_is_written(file: Path, text: str, value: Any) -> None:
    file.write_text(upstream(f"  set_fields: {{x: {text}}}\n"))
    found = only(load({}, environ=NO_ENVIRONMENT, file=file)).set_fields["x"]
    assert (found, type(found)) == (value, type(value))


DEEP = "[" * 30 + "]" * 30


@pytest.mark.parametrize(
    ("lines", "line", "complaint"),
    [
        ("  replicas:\n    - http://b/v1\n    - b/v1\n", 5, "upstream.replicas: item 2: must be an http://"),
        (f"  replicas: [http://u:{SECRET}@b/v1]\n", 3, "item 1: must not carry a credential"),
        ("  replicas: http://b/v1\n", 3, "upstream.replicas: must be a list"),
        ("  models: []\n", 3, "upstream.models: Tuple should have at least 1 item"),
        ("  models: [a, '']\n", 3, "item 2: String should have at least 1 character (got '')"),
        ("  models: [a, [b]]\n", 3, "item 2: Input should be a valid string (got a list, mapping or tag)"),
        ("  models: llama\n", 3, "upstream.models: must be a list (got llama)"),
        ("  models: {a: b}\n", 3, "upstream.models: must be a list (got a list, mapping or tag)"),
        ("  models: !x [a]\n", 3, "upstream.models: must be a list (got a list, mapping or tag)"),
        ("  models:\n  - a\n  - a\n", 3, "upstream.models: has 'a' twice"),
        ("  rename: [a]\n", 3, "upstream.rename: must be a mapping (got a list, mapping or tag)"),
        ("  rename:\n    a: b\n    c:\n", 5, "upstream.rename: Input should be a valid string"),
        ("  rename:\n    a: b\n    a: c\n", 5, "upstream.rename: an item is given twice, first on line 4"),
        ("  rename:\n    [a]: b\n", 4, "upstream.rename: this key must be text"),
        (f"  headers: {{X-A: [{SECRET}]}}\n", 3, "upstream.headers: Input should be a valid string"),
        (f"  headers: {SECRET}\n", 3, "upstream.headers: must be a mapping"),
        (f"  headers: {{'X {SECRET}': a}}\n", 3, "the name of a header must be a token"),
        (f"  headers: {{'': {SECRET}}}\n", 3, "the name of a header must be a token"),
        (f'  headers: {{X-A: "{SECRET}\\n"}}\n', 3, "the value of a header must be printable ASCII"),
        (f"  headers: {{X-A: {SECRET}é}}\n", 3, "the value of a header must be printable ASCII"),
        ("  headers: {X-A: ''}\n", 3, "the value of a header must be printable ASCII, and not empty"),
        ("  headers: {X-A: a, x-a: b}\n", 3, "has a header twice"),
        ("  headers: {Host: a}\n", 3, "Host belongs to the connection"),
        ("  headers: {content-length: 1}\n", 3, "content-length belongs to the connection"),
        ("  headers: {Transfer-Encoding: chunked}\n", 3, "Transfer-Encoding belongs to the connection"),
        ("  drop_fields: [user, model]\n", 3, "drop_fields: model is what the request is about"),
        ("  set_fields: {stream: true}\n", 3, "set_fields: stream is what the request is about"),
        ("  set_fields: {messages: []}\n", 3, "set_fields: messages is what the request is about"),
        ("  set_fields: {input: x}\n", 3, "set_fields: input is what the request is about"),
        ("  set_fields: {x: 1e400}\n", 3, "set_fields: must be JSON"),
        ("  set_fields: {x: 99999999999999999999}\n", 3, "set_fields: must be JSON"),
        ("  set_fields:\n    a: 1\n    x: !y 1\n", 5, "set_fields: tags have no meaning here"),
        ("  set_fields: {x: {a: 1, a: 2}}\n", 3, "each key of a mapping must be text, and is given once"),
        ("  set_fields: {x: &a [*a]}\n", 3, "set_fields: aliases have no meaning here"),
        ("  set_fields: {x: [&a [1], *a]}\n", 3, "set_fields: aliases have no meaning here"),
        (f"  set_fields: {{x: {DEEP}}}\n", 3, "set_fields: is nested too deeply"),
        ("  set_fields: [x]\n", 3, "set_fields: must be a mapping"),
        ("  foreground_reserved: 256\n", 3, "upstream.foreground_reserved (256) is not below"),
        ("  foreground_reserved: -1\n", 3, "foreground_reserved: Input should be greater than or equal to 0"),
        ("  backfill: tgi\n", 3, "backfill: Input should be 'off', 'vllm', 'sglang' or 'llamacpp'"),
        ("  backfill_poll_ms: 49\n", 3, "backfill_poll_ms: Input should be greater than or equal to 50"),
        ("  backfill_waiting_max: -1\n", 3, "backfill_waiting_max: Input should be greater than"),
        ("  backfill_metrics_path: metrics\n", 3, "must be an absolute path without query and fragment"),
        ("  backfill_metrics_path: /m?x\n", 3, "must be an absolute path without query and fragment"),
        ("  backfill_metrics_path: //host/m\n", 3, "must be an absolute path without query and fragment"),
        ("  breaker_failures: 0\n", 3, "breaker_failures: Input should be greater than or equal to 1"),
        ("  breaker_percent: 0\n", 3, "breaker_percent: Input should be greater than 0"),
        ("  retry_percent_max: 101\n", 3, "retry_percent_max: Input should be less than or equal to 100"),
        ("  retry_after_times_max: -1\n", 3, "retry_after_times_max: Input should be greater than or equal"),
        (
            "  retry_after_max_s: 10\n  retry_after_default_s: 11\n",
            4,
            "upstream.retry_after_default_s (11) is above upstream.retry_after_max_s (10)",
        ),
        (
            "  backoff_first_ms: 3000\n",
            3,
            "upstream.backoff_first_ms (3000) is above upstream.backoff_max_ms (2000)",
        ),
        ("  replicas: [http://MODEL:8000/v1/]\n", 3, "upstream.url have a URL twice"),
        ("  replicas: [http://b:8000/v2]\n", 3, "upstream.replicas differ from upstream.url in their path"),
        ("  replicas: [http://localhost:9000/v1]\n", 3, "item 1 of upstream.replicas is where server.port"),
        (
            "  drop_fields: [a, user]\n  set_fields: {user: x}\n",
            4,
            "upstream.set_fields and upstream.drop_fields both have 'user'",
        ),
        (
            "  headers: {authorization: x}\n  api_key: y\n",
            3,
            "upstream.headers has Authorization and upstream.api_key is given: only one key can be sent",
        ),
    ],
)
def test_a_mistake_in_what_a_backend_is_told_names_its_line(
    file: Path, lines: str, line: int, complaint: str
) -> None:
    (problem,) = problems(upstream(lines))
    assert problem.startswith(f"config.yaml:{line}: ")
    assert complaint in problem


@pytest.mark.parametrize("value", [b"x", {1: 2}, {"x": object()}, "\ud800", ["\ud800"]])
def test_a_forced_field_set_in_code_must_be_json_too(value: Any) -> None:
    with pytest.raises(ValidationError, match=r"set_fields\n.* must be JSON"):
        UpstreamSettings(url=URL, set_fields={"x": value})


def test_a_wrong_item_in_the_environment_is_named_by_its_place() -> None:
    environ = {"BACKBURNER_UPSTREAM__URL": URL, "BACKBURNER_UPSTREAM__REPLICAS": f"http://b/v1,{SECRET}"}
    assert problems(environ=environ) == [
        "environment BACKBURNER_UPSTREAM__REPLICAS: upstream.replicas: item 2: "
        "must be an http:// or https:// URL with a host"
    ]


def test_a_header_authorization_without_a_key_is_fine_and_shown_nowhere(file: Path) -> None:
    file.write_text(upstream(f"  headers: {{Authorization: Bearer {SECRET}}}\n"))
    settings = load({}, environ=NO_ENVIRONMENT, file=file)
    assert only(settings).headers["Authorization"].get_secret_value() == f"Bearer {SECRET}"
    assert SECRET not in repr(settings)
    assert SECRET not in settings.model_dump_json()


def test_a_key_may_come_from_a_variable_of_any_name(file: Path) -> None:
    file.write_text(upstream("  api_key_env: GPU_KEY\n"))
    settings = load({}, environ={"GPU_KEY": f"{SECRET}\n"}, file=file)
    assert only(settings).api_key is None
    assert only(settings).read_api_key() == SECRET
    assert SECRET not in repr(settings)
    assert SECRET not in settings.model_dump_json()


def test_a_key_in_a_variable_is_found_without_the_loader_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_KEY", SECRET)
    assert UpstreamSettings(url=URL, api_key_env="GPU_KEY").read_api_key() == SECRET


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        ({}, "names an environment variable that is not set, or is empty"),
        ({SECRET: ""}, "names an environment variable that is not set, or is empty"),
        ({SECRET: f"{SECRET} x"}, "the variable it names must be one line of printable ASCII"),
    ],
)
def test_a_variable_without_one_key_is_refused_and_not_named(
    file: Path, environ: dict[str, str], complaint: str
) -> None:
    (problem,) = problems(upstream(f"  api_key_env: {SECRET}\n"), environ)
    assert problem.startswith(f"config.yaml:3: upstream.api_key_env: {complaint}")


def test_a_key_is_given_in_one_way_only(file: Path) -> None:
    environ = {"GPU_KEY": SECRET, "BACKBURNER_UPSTREAM__API_KEY": SECRET}
    assert problems(upstream("  api_key_env: GPU_KEY\n"), environ) == [
        "environment BACKBURNER_UPSTREAM__API_KEY: upstream.api_key and upstream.api_key_env are both given: "
        "only one key can be sent"
    ]


# Several backends

TWO = """backends:
  gpu-pool:
    url: http://gpu:8000/v1
    models: [llama-*]
  small:
    url: http://cpu:8000/v1
"""


def test_backends_have_names_and_stay_in_order(file: Path) -> None:
    file.write_text(TWO + "default_backend: small\n")
    settings, origins = load_with_origins({}, environ=NO_ENVIRONMENT, file=file)
    assert settings.upstream is None
    assert list(settings.all_backends) == ["gpu-pool", "small"]
    assert settings.all_backends["gpu-pool"].models == ("llama-*",)
    assert settings.default_backend == "small"
    assert origins == {
        "backends.gpu-pool.url": "config.yaml:3",
        "backends.gpu-pool.models": "config.yaml:4",
        "backends.small.url": "config.yaml:6",
        "default_backend": "config.yaml:7",
    }


def test_a_single_upstream_is_the_backend_called_default() -> None:
    settings = Settings.model_validate({"upstream": {"url": URL}, "default_backend": "default"})
    assert settings.all_backends == {"default": UpstreamSettings(url=URL)}


def test_the_environment_extends_the_backends_of_the_file(file: Path) -> None:
    file.write_text(TWO)
    environ = {
        "BACKBURNER_BACKENDS__GPU_POOL__CONCURRENCY_MAX": "7",
        "BACKBURNER_BACKENDS__GPU_POOL__MODELS": "a,b",
        "BACKBURNER_BACKENDS__MORE_STILL__URL": "http://more:8000/v1",
        "BACKBURNER_BACKENDS__MORE_STILL__MODELS": "c",
    }
    settings, origins = load_with_origins({}, environ=environ, file=file)
    assert list(settings.all_backends) == ["gpu-pool", "small", "more_still"]
    assert settings.backends["gpu-pool"].concurrency_max == 7
    assert settings.backends["gpu-pool"].models == ("a", "b")
    assert settings.backends["more_still"].url == "http://more:8000/v1"
    assert origins["backends.gpu-pool.models"] == "environment BACKBURNER_BACKENDS__GPU_POOL__MODELS"


def test_backends_can_come_from_the_environment_alone() -> None:
    environ = {"BACKBURNER_BACKENDS__A__URL": URL, "BACKBURNER_DIALECT": "mka1"}
    settings = load({}, environ=environ, file=None)
    assert (list(settings.all_backends), settings.dialect) == (["a"], "mka1")


def test_a_variable_that_spells_two_backends_is_refused(file: Path) -> None:
    text = "backends:\n  a-b: {url: http://a/v1, models: [a]}\n  a_b: {url: http://b/v1}\n"
    assert problems(text, {"BACKBURNER_BACKENDS__A_B__API": "chat"}) == [
        "environment BACKBURNER_BACKENDS__A_B__API: the backends a-b and a_b of the file are both "
        "spelled so; rename one"
    ]


@pytest.mark.parametrize(
    ("variable", "complaint"),
    [
        ("BACKBURNER_BACKENDS__A__URLL", "unknown setting; did you mean 'BACKBURNER_BACKENDS__A__URL'?"),
        ("BACKBURNER_BACKENDS__a__URL", "unknown setting; did you mean 'BACKBURNER_BACKENDS__A__URL'?"),
        ("BACKBURNER_BACKENDS__URL", "unknown setting; did you mean 'BACKBURNER_BACKENDS__NAME__KEY'?"),
        ("BACKBURNER_BACKENDS___A__URL", "a backend's name is up to 40 letters"),
        ("BACKBURNER_BACKENDS__A__HEADERS", "backends.a.headers: a mapping can only be given in the file"),
    ],
)
def test_a_variable_of_a_backend_that_is_no_setting_is_refused(variable: str, complaint: str) -> None:
    found = problems(environ={"BACKBURNER_BACKENDS__A__URL": URL, variable: SECRET})
    assert len(found) == 1
    assert found[0].startswith(f"environment {variable}: {complaint}")


def test_a_token_for_looking_needs_one_for_changing_beside_it(file: Path) -> None:
    for name in ("admin", "look"):
        Path(name).write_text("a-token-of-some-length")
        Path(name).chmod(0o400)
    only_looks = upstream("") + "server:\n  admin_read_token_file: look\n"
    assert problems(only_looks) == [
        "config.yaml:4: server.admin_read_token_file is given without a token for those who may change "
        "things (server.admin_token_file)"
    ]
    file.write_text(f"{only_looks}  admin_token_file: admin\n")
    settings = load({}, environ={}, file=file)
    assert settings.server.read_admin_read_token() == "a-token-of-some-length"


def test_upstream_and_backends_together_are_refused(file: Path) -> None:
    complaint = "upstream and backends are both given: name it among the backends"
    assert problems(TWO, flags={"upstream.url": URL}) == [f"--upstream: {complaint}"]
    assert problems(TWO, flags={"upstream.api": "chat"}) == [f"--api: {complaint}"]
    assert problems(TWO + f"upstream: {{url: {URL}}}\ndefault_backend: small\n") == [
        f"config.yaml:7: {complaint}"
    ]


def test_settings_made_in_code_need_a_backend_too() -> None:
    with pytest.raises(ValidationError, match=r"upstream\.url is required, or backends in place of upstream"):
        Settings()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "backends: {}\n",
            [
                "upstream.url is required: give --upstream http://host:8000/v1, BACKBURNER_UPSTREAM__URL, "
                "or upstream.url in the file"
            ],
        ),
        ("backends: [a]\n" + upstream(), ["config.yaml:1: backends: must be a mapping of backends by name"]),
        (
            "backends:\n  Big One: {url: http://a}\n",
            ["config.yaml:2: backends.?: this key cannot be the name of a setting"],
        ),
        (
            "backends:\n  Big: {url: http://a}\n",
            [
                "config.yaml:2: backends.?: a backend's name is up to 40 lower-case letters, digits, - and "
                "_, and begins with a letter or digit"
            ],
        ),
        (TWO + "    urll: x\n", ["config.yaml:7: backends.small.urll: unknown setting; did you mean 'url'?"]),
        (
            TWO + "    concurrency_max: 0\n",
            [
                "config.yaml:7: backends.small.concurrency_max: Input should be greater than or equal to 1 "
                "(got 0)"
            ],
        ),
        (
            TWO + "    replicas:\n    - http://x/v1\n    - x\n",
            ["config.yaml:9: backends.small.replicas: item 2"],
        ),
        (TWO + "  small: {}\n", ["config.yaml:7: backends.small: given twice, first on line 5"]),
        (
            TWO + "default_backend: big\n",
            ["config.yaml:7: default_backend must name a backend: gpu-pool, small"],
        ),
        (upstream("default_backend: big\n"), ["config.yaml:3: default_backend must name a backend: default"]),
        (
            TWO + "    models: [x, llama-*]\n",
            ["config.yaml:7: backends.small.models: 'llama-*' is never reached: backends.gpu-pool has it"],
        ),
        (
            "backends:\n  a: {url: http://a/v1}\n  b:\n    url: http://b/v1\n",
            ["config.yaml:3: backends.b.models: '*' is never reached: backends.a has it already"],
        ),
        (
            "backends:\n  a: {url: http://a/v1}\n  b: {url: http://c/v1, replicas: [http://A:80/v1/]}\n",
            ["config.yaml:3: backends.b and backends.a have a URL and their models in common"],
        ),
        (
            TWO.replace("cpu:8000/v1", "cpu:8000/v2"),
            ["config.yaml:6: backends.small.url and backends.gpu-pool.url differ in their path: clients"],
        ),
        (
            TWO.replace("http://cpu:8000/v1", "http://localhost:9000/v1"),
            ["config.yaml:6: backends.small.url is where server.port (9000) listens: the gateway would call"],
        ),
        (
            TWO + "    replicas: [http://127.0.0.1:9001/v1]\n",
            ["config.yaml:7: item 1 of backends.small.replicas is where server.admin_port (9001) listens"],
        ),
        (
            TWO + "    foreground_reserved: 300\n",
            ["config.yaml:7: backends.small.foreground_reserved (300) is not below backends.small.concurr"],
        ),
        (
            TWO + "    url: x\nserver: {port: 9001}\n",
            ["config.yaml:7: backends.small.url: given twice", "config.yaml:8: server.port and server.admin"],
        ),
    ],
)
def test_a_mistake_among_backends_names_its_line(file: Path, text: str, found: list[str]) -> None:
    assert [told[: len(start)] for told, start in zip(problems(text), found, strict=True)] == found


def test_a_backend_without_a_url_is_told_with_its_line(file: Path) -> None:
    assert problems("backends:\n  a: {api: chat}\n  b:\n  c: 5\n") == [
        "config.yaml:4: backends.c: must be a mapping of settings",
        "config.yaml:2: backends.a.url is required: the base URL of that model server",
        "config.yaml:3: backends.b.url is required: the base URL of that model server",
        "config.yaml:4: backends.c.url is required: the base URL of that model server",
        "config.yaml:3: backends.b.models: '*' is never reached: backends.a has it already",
        "config.yaml:4: backends.c.models: '*' is never reached: backends.a has it already",
    ]


def test_one_model_server_may_be_two_backends_with_different_models() -> None:
    backends = {
        "a": UpstreamSettings(url=URL, models=("a",)),
        "b": UpstreamSettings(url=URL, models=("b",), drop_fields=("user",)),
    }
    assert list(Settings(backends=backends).all_backends) == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("dialect: latin\n", "dialect: Input should be 'openai', 'mka1' or 'pharia' (got latin)"),
        ("dialect: {a: b}\n", "(got a list, mapping or tag)"),
        ("dialekt: mka1\n", "dialekt: unknown setting; did you mean 'dialect'?"),
        ("default_backend: A B\n", "default_backend: String should match pattern"),
    ],
)
def test_a_mistake_outside_the_sections_names_its_line(file: Path, line: str, problem: str) -> None:
    (found,) = problems(upstream(line))
    assert found.startswith("config.yaml:3: ")
    assert problem in found


# The example

EXAMPLE = ROOT / "config.example.yaml"


def test_the_example_has_every_setting_at_its_default() -> None:
    document = yaml.safe_load(EXAMPLE.read_text())
    named = [
        f"{section}.{key}" if isinstance(keys, dict) else section
        for section, keys in document.items()
        for key in (keys if isinstance(keys, dict) else [None])
    ]
    assert sorted(named) == sorted(NAMES)
    defaults = Settings(upstream=UpstreamSettings(url="http://localhost:8000/v1"))
    assert load({}, environ=NO_ENVIRONMENT, file=EXAMPLE) == defaults


def test_every_setting_of_the_example_is_explained() -> None:
    lines = EXAMPLE.read_text().splitlines()
    settings = [number for number, line in enumerate(lines) if re.match(r"  \w|\w+: \S", line)]
    assert len(settings) == len(NAMES)
    assert [lines[number] for number in settings if not lines[number - 1].lstrip().startswith("# ")] == []


def test_the_backends_of_the_example_load_in_place_of_its_upstream(file: Path) -> None:
    text = EXAMPLE.read_text()
    start = text.index("#backends:")
    before, block, after = text[:start], *text[start:].split("\n\n", 1)
    without_upstream = re.sub(r"(?m)^upstream:\n(( .*)?\n)*", "", before)
    file.write_text(f"{without_upstream}\n{re.sub('(?m)^#', '', block)}\n\n{after}")
    settings = load({}, environ=NO_ENVIRONMENT, file=file)
    pool, small = settings.all_backends.values()
    assert settings.upstream is None
    assert (len(pool.urls), len(small.urls)) == (2, 1)
    assert pool.set_fields == {"top_k": 20, "chat_template_kwargs": {"enable_thinking": False}}


def test_every_flag_belongs_to_a_setting() -> None:
    assert set(FLAGS) <= set(NAMES)
    assert [f"upstream.{key}" for key in BACKEND_KEYS] == [
        name for name in NAMES if name.startswith("upstream.")
    ]
