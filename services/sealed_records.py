"""Which fields of records and events hold text: sealed on their way to Redis, opened on the way back.

The scripts see ids, states and numbers. What they must take apart stays JSON and holds sealed parts: a problem its
``detail``, the input of a run's documents the ``name``; everything else is sealed as a whole.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Collection, Mapping
from typing import Any

from services.data_keys import Erased, matter_owner
from services.jobs import Completion, is_inline
from services.seals import MARK, Seals
from services.tenant_secrets import TenantSecrets

_ERASED_NAME = "(erased)"
_EMPTY = ("", "{}")  # of every job that a client says no more of; sealed, each would cost as much as what it says
_TEXTS = ("input", "metadata", "problem", "name", "external_id", "result")


def owners_of(tenant: str, document: str | None, matter: str | None) -> tuple[str, ...]:
    """What the texts of a job belong to: its document and its matter, so that they go with either."""
    named = (document, matter_owner(tenant, matter) if matter else None)
    return tuple(name for name in named if name)


class SealedRecords:
    """Seals and opens records; without a master key they pass as they are."""

    def __init__(self, seals: Seals, secrets: TenantSecrets) -> None:
        self.seals = seals
        self._secrets = secrets

    def digest(self, tenant: str, kind: str, text: str) -> str:
        """What stands in Redis for a text by which a client finds something again, 64 hexadecimal digits.

        Whoever has not the tenant's key cannot find out the text by trying: with a master key that is the data key,
        which no backup can open, else the secret by which blobs are named.
        """
        data, keys = f"casemill {kind} {text}".encode("utf-8", "surrogatepass"), self.seals.keys
        if keys is None:
            return self._secrets.keyed(tenant, data)
        return hmac.digest(keys.get(tenant, (), make=True), data, "sha256").hex()

    def seal_job(self, tenant: str, fields: Mapping[str, str], *, template: bool = False) -> dict[str, str]:
        """The fields of a new record as they lie in Redis; the input of a ``template`` holds no text."""
        owners = owners_of(tenant, fields.get("document"), fields.get("matter"))
        kinds = ("metadata", "external_id") if template else ("input", "metadata", "external_id")
        sealed = {
            kind: self.seals.seal_text(tenant, kind, fields[kind], owners)
            for kind in kinds
            if fields.get(kind, "") not in _EMPTY
        }
        return {**fields, **sealed}

    def open_job(self, fields: Mapping[str, str]) -> dict[str, str]:
        """A record as it was before it was sealed; what belongs to something erased is empty."""
        if not any(MARK in fields.get(name, "") for name in _TEXTS):
            return dict(fields)
        tenant, opened = fields["tenant"], dict(fields)
        for kind in ("input", "metadata"):
            if kind in fields:
                opened[kind] = self._text(tenant, kind, fields[kind], "{}")
        if not fields["input"].startswith(MARK) and MARK in fields["input"]:
            body = json.loads(fields["input"])
            opened["input"] = json.dumps(body | {"name": self.name(tenant, str(body.get("name", "")))})
        if fields.get("problem"):
            opened["problem"] = json.dumps(self.open_problem(tenant, json.loads(fields["problem"])))
        if "name" in fields:
            opened["name"] = self.name(tenant, fields["name"])
        if MARK in fields.get("result", ""):
            opened["result"] = self._text(tenant, "result", fields["result"], "")
        if fields.get("external_id"):
            opened["external_id"] = self.external_id(tenant, fields["external_id"])
        return opened

    def seal_completion(self, completion: Completion) -> dict[str, str]:
        """What became of a claim, as the script reads it."""
        claim, problem, result = completion.claim, completion.problem, completion.result
        owners = owners_of(claim.tenant, claim.document, claim.matter)
        if problem:
            problem = self.seal_problem(claim.tenant, problem, owners)
        if is_inline(result):
            try:
                result = self.seals.seal_text(claim.tenant, "result", result, owners)
            except Erased:
                result = ""
        return {
            "tenant": claim.tenant,
            "id": claim.id,
            "attempt": str(claim.attempt),
            "outcome": completion.outcome,
            "result": result,
            "problem": json.dumps(problem) if problem else "",
            "retry_after": str(completion.retry_after),
            "reused": "1" if completion.reused else "",
        }

    def seal_problem(self, tenant: str, problem: dict[str, Any], owners: Collection[str]) -> dict[str, Any]:
        """A problem whose detail, which may quote, is sealed; of something erased there is none."""
        try:
            return problem | {"detail": self.seals.seal_text(tenant, "detail", str(problem["detail"]), owners)}
        except Erased:
            return problem | {"detail": "It was erased."}

    def open_problem(self, tenant: str, problem: dict[str, Any]) -> dict[str, Any]:
        """A problem as :meth:`seal_problem` was given it."""
        return problem | {"detail": self.detail(tenant, str(problem.get("detail", "")))}

    def open_event(self, tenant: str, stored: str) -> dict[str, Any]:
        """The data of an event."""
        if stored.startswith(MARK):
            data: dict[str, Any] = json.loads(self._text(tenant, "event", stored, "{}"))
            return data
        data = json.loads(stored)
        if MARK in stored:
            if "name" in data:
                data["name"] = self.name(tenant, data["name"])
            if "problem" in data:
                data["problem"] = self.open_problem(tenant, data["problem"])
        return data

    def name(self, tenant: str, stored: str) -> str:
        """The name of a file or a run."""
        return self._text(tenant, "name", stored, _ERASED_NAME)

    def external_id(self, tenant: str, stored: str) -> str:
        """What a client calls a job."""
        return self._text(tenant, "external_id", stored, "")

    def detail(self, tenant: str, stored: str) -> str:
        """The detail of a problem."""
        return self._text(tenant, "detail", stored, "It was erased.")

    def _text(self, tenant: str, kind: str, stored: str, otherwise: str) -> str:
        try:
            return self.seals.open_text(tenant, kind, stored)
        except Erased:
            return otherwise
