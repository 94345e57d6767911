"""The containers' files: valid, closed where they must be, and every command in them run on this machine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml
from dockerfile_parse import DockerfileParser

from gateway.stack.valkey import find_server, free_port
from services.settings import Settings
from tests.conftest import wait_until

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
COMPOSE = ROOT / "compose.yaml"
# What `.env` holds; the names that are no settings of ours are for Compose alone.
VARIABLES = {"REDIS_PASSWORD": "a1b2c3", "CASEMILL_FLOWER_PASSWORD": "d4e5f6", "CASEMILL_ENGINE": "fake"}
WORKERS = ("documents", "delivery", "cpu", "gpu")
LANES = ["analyze", "deliver", "embed", "extract", "generate"]
# Services of the profile of that name, and where each is published.
MONITORING = {"prometheus": "127.0.0.1:9090:9090", "grafana": "127.0.0.1:3000:3000"}
VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")


@dataclass
class Image:
    """One stage of the Dockerfile with what it inherits from the stages below it."""

    name: str
    base: str
    env: dict[str, str] = field(default_factory=dict[str, str])
    copies: list[tuple[str | None, list[str]]] = field(default_factory=list[tuple[str | None, list[str]]])
    command: list[str] = field(default_factory=list[str])
    entrypoint: list[str] = field(default_factory=list[str])
    healthcheck: list[str] = field(default_factory=list[str])
    user: str = "root"
    runs: list[str] = field(default_factory=list[str])


def parse_dockerfile() -> dict[str, Image]:
    parser = DockerfileParser(path=str(DOCKERFILE))
    images: dict[str, Image] = {}
    image = Image("", "")
    for item in parser.structure:
        instruction, value = item["instruction"], item["value"]
        if instruction == "FROM":
            base, _, name = value.partition(" AS ")
            under = images.get(base, Image("", ""))
            image = Image(
                name, base, dict(under.env), [], under.command, under.entrypoint, under.healthcheck, under.user
            )
            images[name] = image
        elif instruction == "ENV":
            image.env |= dict(pair.split("=", 1) for pair in shlex.split(value))
        elif instruction == "COPY":
            words = shlex.split(value)
            stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else None
            image.copies.append((stage, words[:-1]))
        elif instruction == "CMD":
            image.command = json.loads(value)
        elif instruction == "ENTRYPOINT":
            image.entrypoint = json.loads(value)
        elif instruction == "HEALTHCHECK":
            image.healthcheck = json.loads(value.partition("CMD ")[2])
        elif instruction == "USER":
            image.user = value
        elif instruction == "RUN":
            image.runs.append(value)
    return images


def interpolate(text: str, variables: dict[str, str]) -> str:
    """What Compose makes of ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?what to do}``."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if variables.get(name):
            return variables[name]
        if operator == ":-":
            return rest
        raise LookupError(f"{name}: {rest}")

    return VARIABLE.sub(value, text)


def compose(variables: dict[str, str]) -> dict[str, Any]:
    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: walk(value) for key, value in node.items()}
        if isinstance(node, list):
            return [walk(value) for value in node]
        return interpolate(node, variables) if isinstance(node, str) else node

    return walk(yaml.safe_load(COMPOSE.read_text(encoding="utf-8")))


def roles() -> dict[str, Any]:
    """The services that are ours."""
    theirs = {"redis", *MONITORING}
    return {name: service for name, service in compose(VARIABLES)["services"].items() if name not in theirs}


IMAGES = parse_dockerfile()


def test_compose_file_follows_the_specification() -> None:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text("utf-8"))
    jsonschema.validate(compose(VARIABLES), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"services": {"gateway": {"imagee": "x"}}}, schema)


@pytest.mark.parametrize("name", ["REDIS_PASSWORD", "CASEMILL_FLOWER_PASSWORD"])
def test_unset_passwords_stop_the_start_and_say_what_to_set(name: str) -> None:
    with pytest.raises(LookupError, match=rf"{name}: set {name} in \.env"):
        compose(VARIABLES | {name: ""})


def test_names_in_the_environment_are_settings() -> None:
    known = {"REDIS_URL"} | {f"CASEMILL_{name.upper()}" for name in Settings.model_fields if name != "redis_url"}
    for name, service in roles().items():
        assert set(service["environment"]) <= known, name
    for image in IMAGES.values():
        assert {name for name in image.env if name.startswith("CASEMILL_")} <= known, image.name
    asked = set(VARIABLE.findall(COMPOSE.read_text(encoding="utf-8")))
    assert {name for name, _, _ in asked} <= known | {"REDIS_PASSWORD"}


def test_only_the_gateway_is_published_and_only_it_and_the_sender_of_webhooks_leave_the_internal_network() -> None:
    described = compose(VARIABLES)
    inside = {name for name, network in described["networks"].items() if network.get("internal")}
    for name, service in described["services"].items():
        assert "network_mode" not in service
        if name in MONITORING:
            assert service["ports"] == [MONITORING[name]]
            assert service["networks"] == ["inside", "watch"]
        elif name == "gateway":
            assert service["ports"] == ["127.0.0.1:8700:8700"]
            assert inside & set(service["networks"])
        elif name == "delivery":
            assert "ports" not in service
            assert service["networks"] == ["inside", "receivers"]
            # It has a route out, and so must not be the one that reads untrusted files.
            assert service["command"][service["command"].index("--lanes") + 1] == "deliver"
        else:
            assert "ports" not in service, name
            assert service["networks"], name
            assert set(service["networks"]) <= inside, name


def test_monitoring_is_asked_for_and_reaches_nothing_outside() -> None:
    described = compose(VARIABLES)
    masquerade = described["networks"]["watch"]["driver_opts"]["com.docker.network.bridge.enable_ip_masquerade"]
    assert masquerade == "false"
    for name in MONITORING:
        service = described["services"][name]
        assert service["profiles"] == ["monitoring"], name
        assert service["cap_drop"] == ["ALL"], name
        for volume in service["volumes"]:
            source, _, options = volume.partition(":")
            assert source in described["volumes"] or ((ROOT / source).is_dir() and options.endswith(":ro")), volume
        assert set(service["secrets"]) <= set(described["secrets"])
    hosts = described["services"]["gateway"]["environment"]["CASEMILL_ALLOWED_HOSTS"]
    assert "gateway" in hosts.split(","), "Prometheus reads the metrics by this name"


def test_roles_share_one_volume_and_have_no_rights_to_spare() -> None:
    for name, service in roles().items():
        assert service["volumes"] == ["data:/data"], name
        assert service["environment"]["CASEMILL_DATA_DIR"] == "/data", name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["build"]["dockerfile"] == str(DOCKERFILE.relative_to(ROOT).as_posix()), name
        assert service["build"]["target"] in IMAGES, name
    assert roles()["gpu"]["profiles"] == ["gpu"]
    assert roles()["gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


@pytest.mark.parametrize("target", ["gateway", "cpu", "gpu"])
def test_targets_run_as_nobody_in_particular_from_what_was_built(target: str) -> None:
    image = IMAGES[target]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.user)
    assert image.env["CASEMILL_DATA_DIR"] == "/data"
    assert image.env["PATH"].startswith("/opt/casemill/bin:")
    stage = f"{target}-build"
    ((copied_from, sources),) = image.copies
    assert copied_from == stage
    assert sources == [IMAGES[stage].env["UV_PROJECT_ENVIRONMENT"]] == ["/opt/casemill"]
    syncs = [words for run in IMAGES[stage].runs if "uv sync" in (words := run)]
    assert syncs
    for words in syncs:
        # The locked versions, and neither the developers' tools nor the demo's weights.
        assert {"--frozen", "--no-default-groups"} <= set(words.split())
        assert ("--extra worker" in words) == (target != "gateway")


def test_llama_cpp_is_built_for_other_machines_too() -> None:
    for stage in ("cpu-build", "gpu-build"):
        image = IMAGES[stage]
        assert "llama-cpp-python:cmake.define.GGML_NATIVE=OFF" in image.env["LLAMA_OPTIONS"]
        assert all("${LLAMA_OPTIONS}" in run for run in image.runs if "uv sync" in run)
    assert "llama-cpp-python:cmake.define.GGML_CUDA=ON" in IMAGES["gpu-build"].env["LLAMA_OPTIONS"]


def test_what_the_builder_copies_exists_and_is_sent_to_it() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    for image in IMAGES.values():
        sources = [source for stage, names in image.copies if stage is None for source in names]
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, source
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for stage in ("gateway-build", "cpu-build", "gpu-build"):
        copied = {source for _, names in IMAGES[stage].copies for source in names}
        assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= copied


def test_images_and_makefile_use_one_uv() -> None:
    makefile = re.search(r"UV_VERSION := (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    dockerfile = re.search(r"ARG UV_VERSION=(\S+)", DOCKERFILE.read_text(encoding="utf-8"))
    assert makefile
    assert dockerfile
    assert makefile[1] == dockerfile[1]


class Containers:
    """The services of compose.yaml as processes of this machine, each with its container's environment alone."""

    def __init__(self, folder: Path) -> None:
        self.compose = compose(VARIABLES)
        self.ports = {"redis": free_port(), "gateway": free_port(), "flower": free_port()}
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self._folder = folder
        (folder / "data").mkdir()
        (folder / "queue").mkdir()

    def local(self, text: str) -> str:
        """Names, ports and paths of the containers, as this machine has them."""
        text = text.replace("redis:6379", f"127.0.0.1:{self.ports['redis']}")
        text = text.replace("flower:8701", f"127.0.0.1:{self.ports['flower']}")
        text = re.sub(r"\b0\.0\.0\.0\b", "127.0.0.1", text)
        return re.sub(r"(?<![\w/])/data\b", (self._folder / "data").as_posix(), text)

    def environment(self, name: str) -> dict[str, str]:
        service = self.compose["services"][name]
        image = IMAGES[service["build"]["target"]].env if "build" in service else {}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {key: self.local(str(value)) for key, value in (image | service["environment"]).items()}
        if name in self.ports:
            env[{"gateway": "CASEMILL_PORT", "flower": "CASEMILL_FLOWER_PORT"}.get(name, "")] = str(self.ports[name])
        env.pop("", None)
        return env | {"PATH": path, "HOME": str(self._folder)}

    def command(self, name: str) -> list[str]:
        service = self.compose["services"][name]
        if name == "redis":
            config = self._folder / "valkey.conf"
            content = self.compose["configs"]["valkey"]["content"].replace("/data", (self._folder / "queue").as_posix())
            config.write_text(f"{content}port {self.ports['redis']}\nbind 127.0.0.1\n", encoding="utf-8")
            assert service["configs"] == [{"source": "valkey", "target": service["command"][1]}]
            return [str(find_server()), str(config)]
        image = IMAGES[service["build"]["target"]]
        return image.entrypoint + (service.get("command") or image.command)

    def run(self, name: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """A command inside a service's container, as ``docker compose exec`` runs it."""
        return subprocess.run(
            self._found(name, command),
            env=self.environment(name),
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, name: str) -> None:
        with self.log(name).open("wb") as log:
            self.started[name] = subprocess.Popen(
                self._found(name, self.command(name)),
                env=self.environment(name),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def stop(self, name: str) -> int:
        """SIGTERM, and the exit status within the time that compose.yaml grants."""
        process = self.started[name]
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=int(self.compose["services"][name]["stop_grace_period"].removesuffix("s")))

    def healthy(self, name: str) -> bool:
        service = self.compose["services"][name]
        check = service["healthcheck"]["test"][1:] if "healthcheck" in service else IMAGES["gateway"].healthcheck
        assert self.started[name].poll() is None, self.log(name).read_text()
        return self.run(name, check).returncode == 0

    def _found(self, name: str, command: list[str]) -> list[str]:
        program = shutil.which(command[0], path=self.environment(name)["PATH"])
        assert program, command
        return [program, *command[1:]]


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    containers = Containers(tmp_path)
    yield containers
    for process in containers.started.values():
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="containers stop by SIGTERM")
def test_every_command_serves_and_stops(containers: Containers) -> None:
    described = containers.compose["services"]
    containers.start("redis")
    for name in roles():
        containers.start(name)
    wait_until(lambda: containers.healthy("gateway"), 90, "the gateway's healthcheck")
    wait_until(lambda: containers.healthy("flower"), 90, "Flower's healthcheck")

    scopes = ["--scope", "submit", "--scope", "read", "--scope", "operator"]
    made = containers.run("gateway", ["casemill", "keys", "create", "operator", *scopes])
    assert made.returncode == 0, made.stderr
    url, headers = f"http://127.0.0.1:{containers.ports['gateway']}", {"Authorization": f"Bearer {made.stdout.strip()}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as http:

        def ready() -> dict[str, Any] | None:
            for name, process in containers.started.items():
                assert process.poll() is None, f"{name}: {containers.log(name).read_text()}"
            view = http.get("/readyz").json()
            return view if view["checks"].get("workers", {}).get("count") == len(WORKERS) else None

        checks = wait_until(ready, 90, "all workers")["checks"]
        for name in WORKERS:
            assert containers.healthy(name), f"{name}'s healthcheck"
        other = containers.run("cpu", ["python", "-m", "workers", "alive", "--name", "other"])
        assert (other.returncode, "worker_silent" in other.stdout) == (1, True)
        assert checks["workers"]["lanes"] == LANES
        assert checks["redis"]["durable"] == "yes"
        assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 200

        job = http.post("/v1/jobs", json={"type": "generate", "input": {"prompt": "hello"}}).json()
        finished = ("succeeded", "failed", "cancelled", "expired")
        end = wait_until(lambda: (view := http.get(f"/v1/jobs/{job['id']}").json())["state"] in finished and view)
        assert end["state"] == "succeeded", end

        # The gateway reaches Flower at the address and with the password of compose.yaml; nobody else passes.
        assert http.get("/flower/").status_code == 200
        flower = f"http://127.0.0.1:{containers.ports['flower']}/flower/"
        assert httpx.get(flower, trust_env=False).status_code == 401

    for name in [*roles(), "redis"]:
        # Uvicorn ends by the signal itself once it has shut down in order.
        assert containers.stop(name) in (0, -signal.SIGTERM), f"{name}: {containers.log(name).read_text()}"
    assert set(containers.started) == set(described) - set(MONITORING)


@pytest.mark.skipif(sys.platform == "win32", reason="containers are POSIX")
def test_flower_without_its_password_refuses_the_network(containers: Containers) -> None:
    env = containers.environment("flower") | {"CASEMILL_FLOWER_HOST": "0.0.0.0", "CASEMILL_FLOWER_PASSWORD": ""}
    command = [str(Path(sys.executable).parent / "casemill"), *containers.command("flower")[1:]]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "CASEMILL_FLOWER_PASSWORD" in done.stderr
