"""The command line: exit statuses, what goes to which stream, and the health check."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from gateway import __version__
from gateway.__main__ import main
from gateway.config import BACKEND_KEYS, NAMES, EndpointSettings, Settings

ROOT = Path(__file__).parent.parent
URL = "http://model:8000/v1"
SECRET = "sk-very-secret"


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and an environment that says nothing to us."""
    monkeypatch.chdir(tmp_path)
    for variable in list(os.environ):
        if variable.startswith("BACKBURNER_"):
            monkeypatch.delenv(variable)
    return tmp_path


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What `serve` was called with; it returns 7 at once."""
    calls: list[Settings] = []

    def serve(settings: Settings) -> int:
        calls.append(settings)
        return 7

    app = ModuleType("gateway.app")
    app.serve = serve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gateway.app", app)
    return calls


def status_of(*argv: str) -> int | str | None:
    with pytest.raises(SystemExit) as left:
        main(list(argv))
    return left.value.code


def run(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *argv],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# serve


def test_serve_runs_with_the_flags_and_exits_with_the_status_of_the_gateway(served: list[Settings]) -> None:
    Path("key").write_text(SECRET)
    Path("key").chmod(0o600)
    Path("config.yaml").write_text("log: {level: error, format: json}\n")
    flags = "--upstream http://model:8000/v1 --host 0.0.0.0 --port 1 --admin-port 2 --database d.db"
    more = "--retention-s 3 --log-level debug --dialect mka1 --api-key-file key --config config.yaml"
    more += " --log-format text"
    assert status_of("serve", *flags.split(), *more.split()) == 7
    (settings,) = served
    assert settings.upstream is not None
    assert settings.upstream.url == URL
    assert settings.upstream.read_api_key() == SECRET
    assert settings.dialect == "mka1"
    assert (settings.server.host, settings.server.port, settings.server.admin_port) == ("0.0.0.0", 1, 2)
    assert settings.store.database == Path("d.db")
    assert settings.background.retention_s == 3
    assert (settings.log.level, settings.log.format) == ("debug", "text")


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_bad_settings_exit_78_with_every_problem_on_stderr(
    command: str, served: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(command, "--port", "x", "--retention-s", "0") == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 3
    assert all(line.startswith("backburner: ") for line in err.splitlines())
    assert (
        "backburner: --retention-s: background.retention_s: Input should be greater than 0 (got 0)\n" in err
    )
    assert served == []


def test_the_module_is_the_command(workplace: Path) -> None:
    done = run("serve", BACKBURNER_LOG__LEVEL="loud", BACKBURNER_UPSTREAM__API_KEY=f"{SECRET} {SECRET}")
    assert done.returncode == 78
    assert done.stdout == ""
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["backburner"] * 3
    assert SECRET not in done.stderr
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"backburner {__version__}\n")


# check-config


def test_check_config_prints_the_settings_in_force_and_their_origins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("config.yaml").write_text(
        f"upstream:\n  url: {URL}\nlog: {{level: info}}\nstore: {{database: a b.db}}\n"
    )
    monkeypatch.setenv("BACKBURNER_UPSTREAM__API_KEY", SECRET)
    assert status_of("check-config", "--config", "config.yaml", "--port", "1") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert SECRET not in out
    lines = [line.strip() for line in out.splitlines() if "#" in line]
    assert lines == [
        "port: 1  # --port",
        f"url: {URL}  # config.yaml:2",
        "api_key: '***'  # environment BACKBURNER_UPSTREAM__API_KEY",
        "database: a b.db  # config.yaml:4",
    ]
    document = yaml.safe_load(out)
    sections = {name: keys for name, keys in document.items() if isinstance(keys, dict)}
    named = [f"{section}.{key}" for section, keys in sections.items() for key in keys]
    assert sorted([*named, *(document.keys() - sections.keys())]) == sorted(NAMES)
    assert document["server"]["keepalive_timeout_s"] == 75


def test_what_check_config_prints_is_a_settings_file(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--upstream", URL, "--host", "::", "--retention-s", "0.5", "--database", "null"]
    assert status_of("check-config", *flags) == 0
    first = capsys.readouterr().out
    Path("config.yaml").write_text(first)
    assert status_of("check-config", "--config", "config.yaml") == 0
    second = capsys.readouterr().out
    assert yaml.safe_load(second) == yaml.safe_load(first)
    assert "retention_s: 0.5  # config.yaml:" in second


BACKENDS = f"""
default_backend: small
backends:
  gpu-pool:
    url: http://gpu-1:8000/v1
    replicas:
    - http://gpu-2:8000/v1
    models: [llama-*, "yes", "1e3", "a, b"]
    headers: {{X-Key: {SECRET}, Authorization: Bearer {SECRET}}}
    set_fields:
      text: ["1e3", 'off', "a\\nb # c", ""]
      number: [1e3, 20, 0.5, true, null]
  small:
    url: http://cpu:8000/v1
    api_key_env: SMALL_KEY
"""


def test_check_config_prints_several_backends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("config.yaml").write_text(BACKENDS)
    monkeypatch.setenv("SMALL_KEY", SECRET)
    monkeypatch.setenv("BACKBURNER_BACKENDS__SMALL__DROP_FIELDS", "user,metadata")
    assert status_of("check-config", "--config", "config.yaml", "--dialect", "pharia") == 0
    first = capsys.readouterr().out
    assert SECRET not in first
    assert [line for line in first.splitlines() if "  # " in line] == [
        "dialect: pharia  # --dialect",
        "default_backend: small  # config.yaml:2",
        "    url: http://gpu-1:8000/v1  # config.yaml:5",
        "    replicas: ['http://gpu-2:8000/v1']  # config.yaml:6",
        "    models: [llama-*, 'yes', \"1e3\", 'a, b']  # config.yaml:8",
        "    headers: {X-Key: '***', Authorization: '***'}  # config.yaml:9",
        "    set_fields: {text: [\"1e3\", 'off', \"a\\nb # c\", ''], "
        "number: [1000.0, 20, 0.5, true, null]}  # config.yaml:10",
        "    url: http://cpu:8000/v1  # config.yaml:14",
        "    api_key_env: SMALL_KEY  # config.yaml:15",
        "    drop_fields: [user, metadata]  # environment BACKBURNER_BACKENDS__SMALL__DROP_FIELDS",
    ]
    document = yaml.safe_load(first)
    assert "upstream" not in document
    assert [tuple(keys) for keys in document["backends"].values()] == [BACKEND_KEYS, BACKEND_KEYS]

    Path("config.yaml").write_text(first)
    monkeypatch.delenv("BACKBURNER_BACKENDS__SMALL__DROP_FIELDS")
    assert status_of("check-config", "--config", "config.yaml") == 0
    assert yaml.safe_load(capsys.readouterr().out) == document


def test_the_example_passes_check_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("check-config", "--config", str(ROOT / "config.example.yaml")) == 0
    commented = [line for line in capsys.readouterr().out.splitlines() if "#" in line]
    assert [line.split()[0] for line in commented] == ["url:"]


# Misuse


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["frobnicate"],
        ["serve", "--api-key", SECRET],
        ["serve", f"--api-key={SECRET}"],
        ["serve", SECRET],
        ["check-config", "--upstream"],
    ],
)
def test_a_wrong_command_line_exits_2_and_repeats_no_value(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "backburner" in err
    assert SECRET not in err


def test_check_config_shows_endpoints_without_their_addresses_and_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = f"whsec_{'A' * 44}"
    url = f"https://{SECRET}:{SECRET}@hooks.test/{SECRET}?{SECRET}"
    Path("config.yaml").write_text(
        "upstream: {url: http://gpu:8000/v1}\n"
        "webhooks:\n  allowed_networks: [10.20.0.0/16]\n"
        f"  endpoints:\n    billing:\n      url: {url}\n      secrets: [{secret}]\n"
        "      secret_envs: [HOOK]\n"
    )
    monkeypatch.setenv("HOOK", secret)
    assert status_of("check-config", "--config", "config.yaml") == 0
    shown = capsys.readouterr().out
    assert SECRET not in shown
    assert secret not in shown
    webhooks = yaml.safe_load(shown)["webhooks"]
    assert webhooks["allowed_networks"] == ["10.20.0.0/16"]
    assert tuple(webhooks["endpoints"]["billing"]) == tuple(EndpointSettings.model_fields)
    assert webhooks["endpoints"]["billing"]["secrets"] == ["***"]
    assert "      url: '***'  # config.yaml:6" in shown.splitlines()


# healthcheck


class _Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture(params=[200])
def admin_port(request: pytest.FixtureRequest) -> Iterator[str]:
    """The port of a server whose /healthz answers with the status given as parameter."""
    handler = type("Health", (_Health,), {"status": request.param})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield str(server.server_port)
        server.shutdown()
        thread.join()


def test_a_healthy_gateway_exits_0(
    admin_port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # would refuse: not to be used
    assert status_of("healthcheck", "--admin-port", admin_port) == 0
    monkeypatch.setenv("BACKBURNER_SERVER__ADMIN_PORT", admin_port)
    monkeypatch.setenv("BACKBURNER_SERVER__ADMIN_HOST", "0.0.0.0")
    assert status_of("healthcheck") == 0
    assert run("healthcheck").returncode == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("admin_port", [503, 204, 404], indirect=True)
def test_any_answer_but_200_exits_1(admin_port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("healthcheck", "--admin-port", admin_port) == 1
    assert capsys.readouterr().err.startswith(f"backburner: http://127.0.0.1:{admin_port}/healthz: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_nobody_listening_exits_1(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as bound:  # bound, so that nobody else gets the port, and not listening
        bound.bind(("127.0.0.1", 0))
        port = str(bound.getsockname()[1])
        assert status_of("healthcheck", "--admin-host", host, "--admin-port", port) == 1
    said = capsys.readouterr().err
    assert f"http://127.0.0.1:{port}/healthz: nothing listens there" in said
    assert "--admin-port" in said
    assert "Errno" not in said


def test_the_port_of_a_running_gateway_is_found_in_its_settings(
    admin_port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever else is in them: whoever asks may not be able to read the keys."""
    text = f"server: {{admin_port: {admin_port}, port: none}}\nupstream: {{url: x, api_key_file: /nowhere}}\n"
    Path("other.yaml").write_text(text)
    assert status_of("healthcheck", "--config", "other.yaml") == 0
    monkeypatch.setenv("BACKBURNER_CONFIG", "other.yaml")
    assert status_of("healthcheck") == 0
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("BACKBURNER_SERVER__ADMIN_PORT", "1")  # wins over the file
    assert status_of("healthcheck") == 1
    assert status_of("healthcheck", "--admin-port", admin_port) == 0  # and the flag over both


def test_a_port_that_the_settings_leave_open_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text("server: {admin_port: 0}\n")
    assert status_of("webhooks", "--config", "config.yaml") == 1
    assert "give the port that the gateway has taken by --admin-port" in capsys.readouterr().err


@pytest.mark.parametrize(("is_terminal", "form"), [(True, "text"), (False, "json")])
def test_the_log_is_for_people_on_a_terminal_only(is_terminal: bool, form: str) -> None:
    ours, theirs = pty.openpty() if is_terminal else os.pipe()
    done = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve", "--upstream", URL, "--host", "no.such.host.invalid"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=theirs,
    )
    os.close(theirs)
    said = os.read(ours, 4096).decode()
    assert done.wait(60) == 78
    os.close(ours)
    assert said.startswith("{") is (form == "json")
    assert "refused" in said
    assert "server.host (no.such.host.invalid) is no address" in said
    assert list(Path().glob("backburner.db*")) == []


def test_a_port_that_is_taken_is_told_with_its_flag_and_no_file_is_made() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for flag, name in (("--port", "port"), ("--admin-port", "admin_port")):
            flags = {"--port": "0", "--admin-port": "0", flag: port}
            given = [part for pair in flags.items() for part in pair]
            done = run("serve", "--upstream", URL, *given)
            assert done.returncode == 75
            assert (
                f"port {port} of 127.0.0.1 is taken: give another one by {flag} (server.{name})"
                in done.stderr
            )
    assert list(Path().glob("backburner.db*")) == []


@pytest.mark.parametrize("port", ["x", "99999999", "1 2"])
def test_a_port_that_is_none_exits_1(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("healthcheck", "--admin-port", port) == 1
    assert capsys.readouterr().err.startswith("backburner: ")
