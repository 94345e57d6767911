"""Retells what a test's stack answered for the description: with its ids, and with nothing of this machine's.

An answer tells one story with its request: what the request names has the description's id in both. Of what only the
answer names, the first of a kind has the description's id, unless that is taken, and each other one an id of its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

from gateway.openapi.example_ids import EXAMPLE_IDS
from services.models import FAKE

ID = re.compile(r"\b(doc|job|run|sch|wh|dlv|file|batch|chatcmpl|cmpl|key|req)([_-])([0-9a-f]{8,64})\b(?=(\.\d)?)")
_KEY = re.compile(r"[0-9a-f]{12}")
_SECRET = re.compile(r"\bcm_([0-9a-f]{12})_[0-9a-f]{48}\b")
_SIGNING = re.compile(r"whsec_[A-Za-z0-9+/=]+")
_WORKER = re.compile(r"@[\w.-]+\.\d+\b")
_OF_KIND = {
    "doc": "document_id",
    "job": "job_id",
    "run": "run_id",
    "sch": "schedule_id",
    "wh": "webhook_id",
    "dlv": "delivery_id",
    "file": "file_id",
    "batch": "batch_id",
    "key": "key_id",
    "chatcmpl": "job_id",  # the first of its jobs has the same digits
    "cmpl": "job_id",
}
_OTHER_DIGITS = "3f0c9a7be15d48c2a6e19b70"
_HERE: dict[str, Any] = {"pid": 4211, "host": "office", "memory": 2**30}
# The models of the engine that plays those of the description; they have the same name.
_PLAYED = {"generate": EXAMPLE_IDS["model_id"], "embed": EXAMPLE_IDS["embedding_model_id"]}


def retold(body: Any, ids: dict[str, str]) -> Any:
    """A body, JSON or a text, as the description has it; ``ids`` are those that the request was sent with."""
    return _Story(body if isinstance(body, str) else json.dumps(body), ids).tell(body)


def digits_of(name: str) -> str:
    """What makes an id one of a kind: all that follows its kind."""
    found = ID.fullmatch(name)
    return found[3] if found else name


def kind_of(found: re.Match[str]) -> str:
    """What an id is of; the jobs of a run have the run's digits."""
    return "run" if found[1] == "job" and found[4] else found[1]


class _Story:
    """What the things of one answer are called."""

    def __init__(self, text: str, ids: dict[str, str]) -> None:
        self._names: dict[str, str] = {}
        self._digits: dict[str, str] = {}
        for name, value in ids.items():
            here = self._digits if name.endswith("_id") and "model" not in name else self._names
            here[digits_of(value)] = digits_of(EXAMPLE_IDS[name])
        self._taken = {known for real, known in self._digits.items() if real in text}
        self._hashes: dict[str, str] = {}

    def tell(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._text(name): self._member(name, one) for name, one in self._played(value).items()}
        if isinstance(value, list):
            return [self.tell(one) for one in value if not (isinstance(one, dict) and one.get("id") == FAKE)]
        return self._text(value) if isinstance(value, str) else value

    def _member(self, name: str, value: Any) -> Any:
        if name in _HERE:
            return _HERE[name]
        if name == "next_cursor" and value:
            return self._cursor(value)
        if name in ("hash", "previous") and value:  # they are of the times, too
            return self._hashes.setdefault(value, hashlib.sha256(b"%d" % len(self._hashes)).hexdigest())
        if name == "seconds" and isinstance(value, dict):  # of steps, in the order of a hash's fields
            return dict(sorted(value.items()))
        return "llama" if (name, value) == ("engine", FAKE) else self.tell(value)

    def _text(self, text: str) -> str:
        if "\n" in text or text.startswith("{"):
            return "\n".join(map(self._line, text.split("\n")))
        if text in self._names:
            return self._names[text]
        if _KEY.fullmatch(text):
            return self._named("key", text)
        return self._plain(text)

    def _line(self, line: str) -> str:
        """One that is JSON, alone or as the data of an event, or any other."""
        start = line.find("{")
        if line[:start] not in ("", "data: ") or not line.endswith("}"):
            return self._plain(line)
        return line[:start] + json.dumps(self.tell(json.loads(line[start:])), ensure_ascii=False)

    def _plain(self, text: str) -> str:
        text = ID.sub(lambda at: at[1] + at[2] + self._named(kind_of(at), at[3]), text)
        text = _SECRET.sub(lambda at: f"cm_{self._named('key', at[1])}_{'0123456789abcdef' * 3}", text)
        text = _SIGNING.sub("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", text)
        return _WORKER.sub("@office.4211", text).replace(f", {FAKE}", "")

    def _named(self, kind: str, digits: str) -> str:
        if digits not in self._digits:
            usual = digits_of(EXAMPLE_IDS[_OF_KIND[kind]]) if kind in _OF_KIND else _OTHER_DIGITS
            name = usual if usual not in self._taken else f"{usual[:-2]}{0x10 + len(self._taken):02x}"
            self._taken.add(name)
            self._digits[digits] = name
        return self._digits[digits]

    def _cursor(self, cursor: str) -> str:
        words = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().split(" ")
        told = " ".join([*words[:-1], self._text(words[-1])])
        return base64.urlsafe_b64encode(told.encode()).decode().rstrip("=")

    @staticmethod
    def _played(row: dict[str, Any]) -> dict[str, Any]:
        """A model that a worker has, by the name of the one that it plays."""
        if row.get("name") != FAKE or row.get("kind") not in _PLAYED:
            return row
        name = _PLAYED[row["kind"]]
        return row | {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()}
