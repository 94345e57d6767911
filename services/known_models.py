"""The models that a job may name: those installed here and those that live workers announce."""

from __future__ import annotations

import math
import time

from services.fleet import Fleet
from services.models import CLAUSE_MODEL, Catalog


class KnownModels:
    """Looks them up as models and workers come and go."""

    def __init__(self, catalog: Catalog, fleet: Fleet) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._found: dict[str, tuple[float, list[str]]] = {}

    def names(self, kind: str, *, within: float = 0.0) -> list[str]:
        """Names of the models for a kind: those installed in the order of their installation, then the workers'.

        They may be as they were ``within`` so many seconds. That of the clause heads comes last: its vectors are for
        them, and rank texts worse than those it was made from.
        """
        read, names = self._found.get(kind, (-math.inf, []))
        if time.monotonic() - read < within:
            return names
        installed = [model.name for model in self._catalog.list() if model.kind == kind]
        announced = [model.name for model in self._fleet.models() if model.kind == kind]
        known = dict.fromkeys([*installed, *announced])
        names = sorted(known, key=lambda name: name == CLAUSE_MODEL)
        self._found[kind] = time.monotonic(), names
        return names
