"""The guides' code blocks, run as they stand against a running stack."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.stack.valkey import free_port
from tests.conftest import wait_until
from tests.integration.conftest import Running

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(guide: str, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall((GUIDES / guide).read_text(encoding="utf-8")) if kind == language]


@pytest.mark.skipif(sys.platform == "win32", reason="the guide's commands are a shell's")
@pytest.mark.parametrize("with_package", [False, True])
def test_the_guide_of_webhooks_works_as_written(fake_stack: Running, tmp_path: Path, with_package: bool) -> None:
    register, send, fetch, replay = blocks("webhooks.md", "sh")
    alone, package = blocks("webhooks.md", "python")
    program = tmp_path / "receiver.py"
    program.write_text(alone + (package if with_package else "") + "\nserve()\n", encoding="utf-8")
    port = str(free_port())
    env = os.environ | {"URL": fake_stack.url, "KEY": fake_stack.key, "ENDPOINT": f"http://127.0.0.1:{port}/hook"}

    def shell(*commands: str) -> str:
        script = "set -eu\n" + "\n".join(commands)
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    env["WEBHOOK"] = shell(register, 'printf %s "$WEBHOOK"')
    read = "import json; print(json.load(open('webhook.json'))['secret'])"
    env |= {"PORT": port, "SECRET": shell(f'python3 -c "{read}"').strip()}
    printed = tmp_path / "printed.txt"
    with printed.open("wb") as out:
        receiver = subprocess.Popen([sys.executable, str(program)], env=env, stdout=out, stderr=subprocess.DEVNULL)
    try:
        listening = f"exec 3<>/dev/tcp/127.0.0.1/{port}"
        wait_until(lambda: subprocess.run(["bash", "-c", listening], capture_output=True, check=False).returncode == 0)
        shell(send)
        wait_until(lambda: len(printed.read_text().splitlines()) == 2, 30, "both messages")
        said = sorted(printed.read_text().splitlines())
        assert said[0].startswith("job.succeeded job_")
        assert said[1] == "webhook.test None"
        assert '"state":"succeeded"' in shell(fetch)
        assert '"event":"webhook.test"' in shell(replay)
    finally:
        receiver.kill()
        receiver.wait()
        fake_stack.http.delete(f"/v1/webhooks/{env['WEBHOOK']}")
