"""The stack as its operator meets it: `casemill up`, Ctrl-C, a lost server, a killed worker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from gateway.client_file import ClientFile
from gateway.stack.supervisor import dead_workers
from gateway.stack.valkey import EmbeddedValkey, find_server, free_port
from services.errors import InvalidRequest, Unavailable
from services.fleet import Announcement
from services.processes import NICE
from tests.conftest import missing, wait_until
from tests.integration.conftest import running

CASEMILL = [sys.executable, "-m", "gateway.cli.main"]


@contextmanager
def up(data_dir: Path, **environment: str) -> Generator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`casemill --json up` on free ports with what it printed; Ctrl-C at the end."""
    env = dict(os.environ) | {
        "CASEMILL_DATA_DIR": str(data_dir),
        "CASEMILL_ENGINE": "fake",
        "CASEMILL_PORT": "0",
        "CASEMILL_FLOWER_PORT": "0",
    }
    command = [*CASEMILL, "--json", "up"]
    with (
        (data_dir / "up.stderr").open("w") as errors,
        subprocess.Popen(command, env=env | environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line, (data_dir / "up.stderr").read_text()
            yield process, json.loads(line)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


def running_still(family: list[psutil.Process]) -> list[psutil.Process]:
    return [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def client(data_dir: Path) -> httpx.Client:
    known = ClientFile(data_dir).read()
    assert known
    headers = {"Authorization": f"Bearer {known.key}"}
    return httpx.Client(base_url=known.url, headers=headers, timeout=60, trust_env=False)


def test_ctrl_c_leaves_nothing_running_and_loses_nothing(tmp_path: Path) -> None:
    body = {"type": "generate", "input": {"prompt": "slow", "max_tokens": 24}, "priority": "bulk"}
    with up(tmp_path) as (process, view):
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 5
        assert view["login"].startswith(view["url"] + "/login?token=")
        with client(tmp_path) as http:
            jobs = [http.post("/v1/jobs", json=body).json()["id"] for _ in range(60)]
    assert process.returncode == 0
    assert running_still(family) == []
    with up(tmp_path), client(tmp_path) as http:
        for job in jobs:
            view = wait_until(
                lambda job=job: (v := http.get(f"/v1/jobs/{job}").json())["state"] == "succeeded" and v, 60, job
            )
            assert view["attempt"] == 1, "a job handed back at Ctrl-C does not count as tried"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="niceness")
def test_workers_on_the_cpu_and_flower_give_way_to_who_is_waited_for(tmp_path: Path) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with up(tmp_path) as (process, _):
        family = psutil.Process(process.pid).children(recursive=True)
        giving_way = [one for one in family if "workers" in one.cmdline() or one.cmdline()[-1] == "flower"]
        assert len(giving_way) >= 4
        wait_until(lambda: {one.nice() for one in giving_way} == {max(own, NICE)}, 30, "niceness")
        assert {one.nice() for one in family if one not in giving_way} == {own}


@pytest.mark.slow
def test_a_second_stack_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with up(tmp_path):
        env = dict(os.environ) | {"CASEMILL_DATA_DIR": str(tmp_path), "CASEMILL_ENGINE": "fake"}
        second = subprocess.run([*CASEMILL, "up"], env=env, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert "stack_running" in second.stderr


@pytest.mark.slow
def test_what_a_killed_supervisor_left_is_cleared(tmp_path: Path) -> None:
    with up(tmp_path) as (process, _):
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
    assert running_still(family)
    with up(tmp_path):
        assert running_still(family) == []


@pytest.mark.slow
def test_without_redis_the_gateway_says_so_and_what_was_accepted_is_there_after(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path / "own-valkey")
    url = server.start()
    try:
        with running(tmp_path, REDIS_URL=url) as stack:
            job = stack.submit(type="generate", input={"prompt": "before"})["id"]
            stack.finished(job)
            server.kill()
            answer = stack.http.post("/v1/jobs", json={"type": "generate", "input": {"prompt": "during"}})
            assert answer.status_code == 503
            assert answer.json()["code"] == "redis_away"
            assert int(answer.headers["retry-after"]) > 0
            assert stack.http.get("/readyz").status_code == 503
            assert stack.http.get("/livez").status_code == 200
            server.start()
            view = wait_until(lambda: (a := stack.http.get(f"/v1/jobs/{job}")).status_code == 200 and a.json(), 30)
            assert view["state"] == "succeeded"
            later = stack.submit(type="generate", input={"prompt": "after"})["id"]
            assert stack.finished(later)["state"] == "succeeded"
    finally:
        server.stop()


@pytest.mark.slow
def test_another_server_serves_as_well(tmp_path: Path) -> None:
    binary = shutil.which("redis-server")
    if not binary:
        missing("redis-server")
    server = EmbeddedValkey(tmp_path / "debian-redis", binary=Path(str(binary)))
    try:
        with running(tmp_path, REDIS_URL=server.start()) as stack:
            ready = stack.http.get("/readyz").json()
            assert ready["checks"]["redis"]["server"] == "redis"
            document = stack.upload(b"This Agreement is governed by the laws of Ohio.").json()["id"]
            view = stack.finished(stack.submit(type="review", document=document)["id"])
            assert view["state"] == "succeeded"
    finally:
        server.stop()


def test_a_killed_worker_is_replaced_and_its_job_runs_again(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        workers = stack.http.get("/v1/workers").json()["data"]
        victim = next(worker for worker in workers if "generate" in worker["lanes"])
        jobs = [
            stack.submit(type="generate", input={"prompt": f"job {number}", "max_tokens": 24})["id"]
            for number in range(40)
        ]
        os.kill(victim["pid"], signal.SIGKILL)
        for job in jobs:
            wait_until(lambda job=job: stack.stack.watch() or stack.job(job)["state"] == "succeeded", 60, job)
            names = [name for _, name, _ in stack.events(job)]
            assert names.count("succeeded") == 1


@pytest.mark.parametrize("variable", ["CASEMILL_PORT=eighty", "CASEMILL_LEASE_SECONDS=-1", "REDIS_URL=http://x"])
def test_a_bad_setting_stops_the_start_and_is_named(variable: str) -> None:
    name, _, value = variable.partition("=")
    env = dict(os.environ) | {name: value}
    done = subprocess.run([*CASEMILL, "up"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert name in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("host", "local"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])
def test_up_on_all_addresses_is_reached_by_loopback(tmp_path: Path, host: str, local: str) -> None:
    if host == "::" and not can_bind("::1"):
        missing("IPv6")
    names = " casemill.example , other.example"
    with up(tmp_path, CASEMILL_HOST=host, CASEMILL_ALLOWED_HOSTS=names) as (_, view), client(tmp_path) as http:
        assert view["url"].startswith(f"http://{local}:")
        assert view["login"].startswith(view["url"])
        assert http.get("/v1/jobs").status_code == 200
        assert http.get("/livez", headers={"Host": "other.example"}).status_code == 200
        assert http.get("/livez", headers={"Host": "evil.example"}).status_code == 400


def can_bind(address: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def test_a_port_is_looked_at_where_it_will_be_bound(tmp_path: Path) -> None:
    other = "127.0.0.2"
    if not can_bind(other):
        pytest.skip(f"{other} is no address here")
    with socket.socket() as taken:
        taken.bind((other, 0))
        taken.listen()
        changes: dict[str, Any] = {"port": taken.getsockname()[1], "host": other}
        with pytest.raises(Unavailable, match="is taken") as raised, running(tmp_path, **changes):
            pass
        assert raised.value.code == "port_taken"
    with pytest.raises(InvalidRequest, match="no address of this machine"), running(tmp_path, host="192.0.2.1"):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_during_the_start_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    env = dict(os.environ) | {
        "CASEMILL_DATA_DIR": str(tmp_path),
        "CASEMILL_PORT": str(free_port()),
        "CASEMILL_FLOWER_PORT": "0",
        "CASEMILL_ENGINE": "fake",
    }
    command = [*CASEMILL, "up"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until((tmp_path / "valkey" / "url").exists, 60, "the embedded server")
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output == ""
    assert "[stopped]" in errors
    assert running_still(family) == []
    assert not (tmp_path / "logs").exists(), "no role was started after the signal"


@pytest.mark.slow
def test_the_lock_is_written_only_when_the_processes_change(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        lock = tmp_path / "up.json"
        before = lock.stat().st_ino, lock.stat().st_mtime_ns
        for _ in range(3):
            stack.stack.watch()
        assert (lock.stat().st_ino, lock.stat().st_mtime_ns) == before
        victim = stack.http.get("/v1/workers").json()["data"][0]["pid"]
        os.kill(victim, signal.SIGKILL)
        wait_until(
            lambda: stack.stack.watch() or victim not in [pid for pid, _ in json.loads(lock.read_text())],
            30,
            "a lock without the dead worker",
        )


def test_a_worker_below_a_dead_child_is_known_by_its_announcement() -> None:
    ended = psutil.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = socket.gethostname()

    def announced(name: str, pid: int, host: str = here) -> Announcement:
        return Announcement(
            f"{name}@{host}.{pid}",
            host,
            pid,
            "cpu",
            "",
            (),
            1,
            0,
            (),
            models=(),
            memory=0,
            engine="",
            version="",
            started=0,
        )

    known = [
        announced("cpu-0", ended.pid),
        announced("cpu-0", os.getpid()),
        announced("cpu-0", ended.pid, "elsewhere"),
        announced("cpu-01", ended.pid),
    ]
    assert dead_workers(known, "cpu-0", 4_000_000) == sorted([f"cpu-0@{here}.{ended.pid}", f"cpu-0@{here}.4000000"])


@pytest.mark.slow
def test_demo_leaves_the_redis_of_the_firm_alone(tmp_path: Path) -> None:
    env = dict(os.environ) | {"CASEMILL_ENGINE": "fake", "CASEMILL_KEY": "cm_of_the_firm", "TMPDIR": str(tmp_path)}
    env |= {"CASEMILL_DATA_DIR": str(tmp_path / "data"), "REDIS_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run([*CASEMILL, "demo"], env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "leaves REDIS_URL alone" in done.stderr
    assert "not legal advice" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["runs its own server", "the stack is up"])
def test_demo_stops_everything_when_it_is_told_to(tmp_path: Path, moment: str) -> None:
    env = dict(os.environ) | {"CASEMILL_ENGINE": "fake", "TMPDIR": str(tmp_path), "REDIS_URL": "redis://127.0.0.1:1/0"}
    env |= {"CASEMILL_DATA_DIR": str(tmp_path / "data")}
    with subprocess.Popen([*CASEMILL, "demo"], env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        seen = next((line for line in process.stderr if moment in line), None)
        assert seen
        if moment.startswith("runs"):
            wait_until(lambda: list(tmp_path.glob("casemill-demo-*/data/valkey/url")), 60, "the embedded server")
        family = wait_until(lambda: psutil.Process(process.pid).children(recursive=True), 60, "its processes")
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 1
    assert "[stopped]" in rest
    assert running_still(family) == []
    assert list(tmp_path.glob("casemill-demo-*")) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Redis has no unix sockets there")
def test_a_server_on_a_unix_socket_serves_as_well(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("s")  # the path of a socket is short
    file, log = folder / "s", (folder / "log").open("w")
    options = [
        "--port",
        "0",
        "--unixsocket",
        str(file),
        "--dir",
        str(folder),
        "--save",
        "",
        "--requirepass",
        "p@ss/w",
    ]
    with log, subprocess.Popen([str(find_server()), *options], stdout=log) as server:
        try:
            wait_until(file.exists, 30, "the socket")
            with running(tmp_path, REDIS_URL=f"unix://:p%40ss%2Fw@{file}?db=3") as stack:
                document = stack.upload(b"This Agreement is governed by the laws of Ohio.").json()["id"]
                view = stack.finished(stack.submit(type="review", document=document)["id"])
                assert view["state"] == "succeeded"
        finally:
            server.terminate()
