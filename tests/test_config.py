"""The settings: precedence, and that every mistake is told once, with its place and without secrets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from gateway.config import (
    FLAGS,
    NAMES,
    ConfigError,
    ServerSettings,
    Settings,
    UpstreamSettings,
    load,
    load_with_origins,
)

ROOT = Path(__file__).parent.parent
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
        section, key = name.split(".")
        value = getattr(getattr(defaults, section), key)
        if value is not None:
            environ[f"BACKBURNER_{section}__{key}".upper()] = str(value)
    assert len(environ) == len(NAMES) - 2
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
    assert settings.upstream.read_api_key() == "12345"


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
        "config.yaml:4: stream.readers_per_response_max (16) is larger than stream.readers_max (10): "
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
        ("background:\n  queue_max: 10\n", 4, "background.queue_per_tenant_max background.queue_max"),
        ("stream:\n  readers_max: 2\n", 4, "stream.readers_per_response_max stream.readers_max"),
        ("server:\n  port: 9001\n", 4, "server.port server.admin_port"),
        (
            "server:\n  admin_port: 9000\n  host: 10.0.0.5\n  admin_host: 0.0.0.0\n",
            4,
            "server.port server.admin_port",
        ),
        ("server:\n  admin_port: 9000\n  host: localhost\n", 4, "server.port server.admin_port"),
    ],
)
def test_an_unreachable_combination_names_both_settings_and_a_line(
    file: Path, lines: str, line: int, names: str
) -> None:
    (problem,) = problems(upstream(lines))
    assert problem.startswith(f"config.yaml:{line}: ")
    assert all(name in problem for name in names.split())


def test_a_body_larger_than_the_database_is_refused_as_well(file: Path) -> None:
    text = "server: {body_bytes_max: 100000}\nbackground: {body_bytes_max: 100000, event_bytes_max: 2000,\n"
    found = problems(upstream(text + "  events_bytes_max: 3000}\nstore: {database_bytes_max: 50000}\n"))
    assert found == [
        "config.yaml:4: background.body_bytes_max (100000) is larger than store.database_bytes_max (50000): "
        "one body would not fit the database"
    ]


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
    assert load({"upstream.url": url}, environ=NO_ENVIRONMENT, file=None).upstream.url == url


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
    assert settings.upstream.read_api_key() == SECRET
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


# The example


def test_the_example_has_every_setting_at_its_default() -> None:
    example = ROOT / "config.example.yaml"
    document = yaml.safe_load(example.read_text())
    assert sorted(f"{section}.{key}" for section, keys in document.items() for key in keys) == sorted(NAMES)
    defaults = Settings(upstream=UpstreamSettings(url="http://localhost:8000/v1"))
    assert load({}, environ=NO_ENVIRONMENT, file=example) == defaults


def test_every_setting_of_the_example_is_explained() -> None:
    lines = (ROOT / "config.example.yaml").read_text().splitlines()
    settings = [
        number for number, line in enumerate(lines) if line.startswith("  ") and line.lstrip()[0] != "#"
    ]
    assert len(settings) == len(NAMES)
    assert [lines[number] for number in settings if not lines[number - 1].startswith("  # ")] == []


def test_every_flag_belongs_to_a_setting() -> None:
    assert set(FLAGS) <= set(NAMES)
