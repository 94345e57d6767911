"""The command line's verbs stand where the table says that loads them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import gateway.cli
from gateway.cli.main import MODULES

ASKS = """
import sys
from gateway.cli.main import casemill
casemill(["jobs", "--help"], standalone_mode=False)
print(*sys.modules)
"""


def test_the_table_names_every_verb_of_every_module() -> None:
    folder = Path(gateway.cli.__file__).parent
    modules = {
        name: importlib.import_module(f"gateway.cli.{name}")
        for name in (file.stem for file in folder.glob("[a-z]*.py"))
    }
    defined = {
        name: tuple(verb.name for verb in module.COMMANDS)
        for name, module in modules.items()
        if hasattr(module, "COMMANDS")
    }
    assert defined == MODULES


def test_who_asks_a_stack_does_not_wait_for_what_starts_one() -> None:
    done = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {"casemill", "gateway.cli.work"} <= loaded
    assert not {"celery", "redis", "fastapi", "numpy", "gateway.stack.supervisor"} & loaded
