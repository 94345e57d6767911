"""House rules that no linter knows: module length, links and commands in the documentation, file names."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("casemill", "services", "shaders", "gateway", "workers")
MAX_LINES = 400
FORBIDDEN_NAMES = {"manager", "helper", "helpers", "utils", "util", "common", "misc"}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TARGET = re.compile(r"`make ([a-z-]+)")


def main() -> int:
    """Print every breach; answers the exit status."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]
    breaches = [*lengths(files), *names(files), *links(files), *commands(files)]
    for breach in breaches:
        print(breach)
    return bool(breaches)


def lengths(files: list[Path]) -> list[str]:
    """Modules over the limit."""
    counts = {
        file: len(file.read_text(encoding="utf-8").splitlines())
        for file in files
        if file.suffix in (".py", ".wgsl", ".lua")
    }
    ours = [count for file, count in counts.items() if file.relative_to(ROOT).parts[0] in PACKAGES and count > 5]
    print(f"{len(ours)} modules, median {statistics.median(ours):.0f} lines, longest {max(ours)}")
    return [
        f"{file.relative_to(ROOT)}: {count} lines, more than {MAX_LINES}"
        for file, count in counts.items()
        if count > MAX_LINES
    ]


def names(files: list[Path]) -> list[str]:
    """Modules whose name says nothing."""
    return [f"{file.relative_to(ROOT)}: name it by what it does" for file in files if file.stem in FORBIDDEN_NAMES]


def links(files: list[Path]) -> list[str]:
    """Relative links in the documentation that lead nowhere."""
    broken: list[str] = []
    for file in files:
        if file.suffix != ".md":
            continue
        for target in LINK.findall(file.read_text(encoding="utf-8")):
            path = target.partition("#")[0]
            if "://" not in target and path and not (file.parent / path).exists():
                broken.append(f"{file.relative_to(ROOT)}: link to {target} leads nowhere")
    return broken


def commands(files: list[Path]) -> list[str]:
    """`make` targets that the documentation names and the Makefile lacks."""
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    return [
        f"{file.relative_to(ROOT)}: `make {target}` is no target"
        for file in files
        if file.suffix == ".md"
        for target in TARGET.findall(file.read_text(encoding="utf-8"))
        if target not in known
    ]


if __name__ == "__main__":
    sys.exit(main())
