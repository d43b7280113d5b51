"""The commands of docs/operations.md do what it says."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import within
from tests.deploy.house import ROOT
from tests.support.pages import only

PAGE = (ROOT / "docs" / "operations.md").read_text()


async def test_a_backup_of_a_running_gateway_can_be_restored(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    ask = {"model": "tiny", "input": "A", "background": True}
    kept = (await gateway.call("POST", "/responses", ask)).json()["id"]
    before = await gateway.ended(kept)
    [command] = re.findall(r"^\$ (umask 077; python3 .*)$", PAGE, re.MULTILINE)
    copy = tmp_path / "copy.db"
    for path, real in {
        "/var/lib/backburner/backburner.db": gateway.database,
        "/var/backups/backburner.db": copy,
    }.items():
        assert path in command
        command = command.replace(path, str(real))
    process = await asyncio.create_subprocess_shell(command)
    assert await within(process.wait()) == 0
    later = (await gateway.call("POST", "/responses", ask)).json()["id"]
    await gateway.ended(later)

    assert await gateway.stop() == 0
    for suffix in ("", "-wal", "-shm"):
        gateway.database.with_name(gateway.database.name + suffix).unlink(missing_ok=True)
    shutil.copy(copy, gateway.database)
    gateway.database.chmod(0o600)
    await gateway.restart()
    assert (await gateway.call("GET", f"/responses/{kept}")).json() == before
    assert (await gateway.call("GET", f"/responses/{later}")).status == 404


async def test_the_commands_of_the_runbooks_show_what_they_say(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    port = gateway.admin.rpartition(":")[2]
    config = tmp_path / "config.yaml"
    config.write_text(f"upstream: {{url: {gateway.upstream}}}\nserver: {{admin_port: {port}}}\n")
    ours = f"{shlex.quote(sys.executable)} -m gateway "
    shown = ("BACKEND", "against backends", "replicas", "backburner_jobs_waiting{")
    for command, words in zip(only("docs/runbooks.md", "console").commands, shown, strict=True):
        typed = command.replace("http://127.0.0.1:9001", gateway.admin)
        process = await asyncio.create_subprocess_shell(
            typed.replace("backburner ", ours, 1) if typed.startswith("backburner ") else typed,
            stdout=asyncio.subprocess.PIPE,
            cwd=tmp_path,
            env={**os.environ, "BACKBURNER_CONFIG": str(config), "PYTHONPATH": str(ROOT)},
        )
        out, _ = await within(process.communicate(), 60)
        is_found = 0 if "doctor" not in command else process.returncode  # it may find this machine wanting
        assert (process.returncode, words in out.decode()) == (is_found, True), out.decode()


def test_each_section_is_in_the_contents() -> None:
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert re.findall(r"^- \[(.+)\]\(#.+\)$", PAGE, re.MULTILINE) == headings


def test_every_link_into_another_page_finds_its_heading() -> None:
    for name in ("operations", "runbooks", "error-codes", "log-events", "metrics"):
        page = ROOT / "docs" / f"{name}.md"
        for target, anchor in re.findall(r"\]\(([\w./-]*\.md)?#([\w-]+)\)", page.read_text()):
            there = (page.parent / target if target else page).read_text()
            slugs = {_slug(heading) for heading in re.findall(r"^#+ (.+)$", there, re.MULTILINE)}
            assert anchor in slugs, f"{name}.md links {target}#{anchor}"


def _slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
