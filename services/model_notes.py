"""Which models are installed, in the audit log: those that are new or have another content since it was looked last.

Models are installed by ``casemill models`` on the machine's disk, with or without a server; so the command notes them
where it can, and each gateway that starts notes what is not noted yet.
"""

from __future__ import annotations

from services.audit import SYSTEM, Audit
from services.keys import Keys
from services.models import Catalog
from services.redis_client import Redis, redis_errors


def note_models(client: Redis, keys: Keys, catalog: Catalog) -> None:
    """Note the installed models that the log does not have; raises ``Unavailable`` when Redis is away."""
    audit = Audit(client, keys)
    with redis_errors():
        noted = client.hgetall(keys("models_noted"))
    for model in catalog.list():
        if noted.get(model.name) != model.sha256:
            audit.note(SYSTEM, "local", "model.installed", model.name, sha256=model.sha256)
            with redis_errors():
                client.hset(keys("models_noted"), model.name, model.sha256)
