"""Every code that the source raises is documented, with its status and its words there, and none besides."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.app import create_app
from gateway.openapi.codes import GATEWAY_CODES
from gateway.openapi.job_codes import JOB_CODES
from gateway.openapi.raises import CODES
from gateway.problems import STATUS_CODES
from services import errors
from services.settings import Settings
from tests.described import Description

ROOT = Path(__file__).parents[2]
# What no client of the API meets, and why.
NOT_TOLD = {
    "audit_broken": "the caretaker takes nothing out of such a log, and an administrator verifies it",
    "client_gone": "the client is gone",
    "grace_invalid": "the routes' own limits are as narrow",
    "schedule_past": "schedules fire by themselves",
    "invalid_request": "every one has a code of its own",
    "not_found": "every one has a code of its own",
    "conflict": "every one has a code of its own",
    "document_unreadable": "every one has a code of its own",
}
# What the command line tells alone: whoever runs a machine, installs models, backs up.
COMMAND_LINE = (
    "gateway/cli/",
    "gateway/stack/",
    "services/backup",
    "services/restore.py",
    "services/master_key.py",
    "services/model_files.py",
    "services/gguf_header.py",
    "workers/hardware.py",
    "workers/liveness.py",
)
COMMAND_LINE_CODES = {
    "model_exists",
    "model_in_use",
    "model_name_invalid",
    "master_key_missing",
    "master_key_other",
    "sha256_invalid",
    "sha256_required",
}
# Where the words of an answer come from elsewhere (pydantic, a parser, FastAPI) or are put together.
ELSEWHERE = {"payload_too_large", "request_invalid", "body_unreadable", "route_unknown", "method_not_allowed"}
# In streams, as their last event, and in the command line's log-in link.
NO_ROUTES = {"key_ended", "stream_restarted", "stream_broken", "login_expired", "flower_away", "method_not_allowed"}


@dataclass(frozen=True)
class Raised:
    """One place: the ``status`` is ``None`` where an error is only passed on, ``says`` where its words are not here."""

    code: str
    status: int | None
    says: str | None
    place: str


def pattern(words: ast.expr) -> str | None:
    """What a message can be, as a regular expression."""
    if isinstance(words, ast.Constant):
        return re.escape(str(words.value))
    if isinstance(words, ast.JoinedStr):
        parts = [re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".*" for part in words.values]
        return "".join(parts)
    return None


def raised_in(file: Path) -> Iterator[Raised]:
    """What a module raises: by a class of the tree, or by one of the three functions that make or raise errors."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        place = f"{file.relative_to(ROOT)}:{node.lineno}"
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        kind: Any = getattr(errors, name, None)
        if name == "unknown" and isinstance(node.args[0], ast.Constant):
            yield Raised(f"{node.args[0].value}_unknown", 404, "there is no .*", place)
        elif name == "choose" and len(node.args) == 3 and isinstance(node.args[2], ast.Constant):
            yield Raised(f"{node.args[2].value}_unknown", 422, "unknown .*; there are: .*", place)
        elif name == "_invalid" and file.name == "webhook_addresses.py":
            yield Raised("webhook_url_invalid", 422, pattern(node.args[0]), place)
        elif name == "__init__" and isinstance(code := given.get("code"), ast.Constant):
            yield Raised(str(code.value), None, pattern(node.args[0]), place)
        elif isinstance(kind, type) and issubclass(kind, errors.CasemillError):
            status = given.get("status")
            told = int(str(status.value)) if isinstance(status, ast.Constant) else kind.status if not status else None
            code = given.get("code")
            if code is None:
                yield Raised(kind.default_code, told, pattern(node.args[0]), place)
            elif isinstance(code, ast.Constant):
                yield Raised(str(code.value), told, pattern(node.args[0]), place)


def raised() -> list[Raised]:
    found: list[Raised] = []
    for package in ("services", "gateway", "workers", "shaders"):
        for file in sorted((ROOT / package).rglob("*.py")):
            if not str(file.relative_to(ROOT)).startswith(COMMAND_LINE):
                found += raised_in(file)
    for file in sorted((ROOT / "services" / "lua").glob("*.lua")):
        text = file.read_text(encoding="utf-8")
        for found_code in re.finditer(r"status = (\d+),\s*code = '(\w+)'", text):
            found.append(Raised(found_code[2], int(found_code[1]), None, file.name))
    # By a variable, which the walk does not follow.
    found += [
        Raised(f"job_{state}", 409, "the job was .*", "gateway/following.py") for state in ("cancelled", "expired")
    ]
    found.append(Raised("playbook_invalid", 422, r"line \d+: .*", "services/playbook_yaml.py"))
    found.append(Raised("playbook_unknown", 422, None, "gateway/submissions.py"))
    found += [Raised(code, status, None, "gateway/problems.py") for status, code in STATUS_CODES.items()]
    return [one for one in found if one.code not in NOT_TOLD.keys() | COMMAND_LINE_CODES]


@pytest.fixture(scope="module")
def places() -> dict[str, list[Raised]]:
    by_code: defaultdict[str, list[Raised]] = defaultdict(list)
    for one in raised():
        by_code[one.code].append(one)
    return by_code


def test_what_is_raised_is_documented_and_what_is_documented_is_raised(places: dict[str, list[Raised]]) -> None:
    missing = {code: [one.place for one in found] for code, found in places.items() if code not in CODES}
    assert not missing, "add them to gateway/openapi/codes.py or job_codes.py"
    assert not CODES.keys() - places.keys(), "nothing raises these any more"


def test_codes_have_the_status_that_they_are_raised_with(places: dict[str, list[Raised]]) -> None:
    for code, told in CODES.items():
        known = {one.status for one in places[code]} - {None}
        assert not known or told.status in known, (code, told.status, known)


def test_examples_say_what_is_said(places: dict[str, list[Raised]]) -> None:
    for codes in (GATEWAY_CODES, JOB_CODES):
        for code, told in codes.items():
            patterns = [one.says for one in places[code] if one.says is not None]
            fits = not patterns or any(re.fullmatch(says, told.detail, re.DOTALL) for says in patterns)
            assert fits or code in ELSEWHERE, (code, told.detail, patterns)


def test_every_code_belongs_to_a_route_or_to_a_failed_job(tmp_path: Path) -> None:
    document = create_app(Settings.model_validate({"data_dir": tmp_path})).openapi()
    told: set[str] = set()
    for operation in Description(document).operations():
        for answer in operation.about["responses"].values():
            problem = answer.get("content", {}).get("application/problem+json", {}).get("schema")
            told |= set(problem["allOf"][1]["properties"]["code"]["enum"]) if problem else set()
    assert GATEWAY_CODES.keys() - told == NO_ROUTES
