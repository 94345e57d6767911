"""The models that a job may name: those installed here and those that live workers announce."""

from __future__ import annotations

from services.fleet import Fleet
from services.models import CLAUSE_MODEL, Catalog


class KnownModels:
    """Looks them up as models and workers come and go; what workers have, as it was ``within`` so many seconds."""

    def __init__(self, catalog: Catalog, fleet: Fleet) -> None:
        self._catalog = catalog
        self._fleet = fleet

    def names(self, kind: str, *, within: float = 0.0) -> list[str]:
        """Names of the models for a kind: those installed in the order of their installation, then the workers'.

        That of the clause heads comes last: its vectors are for them, and rank texts worse than those it was made from.
        """
        installed = [model.name for model in self._catalog.list() if model.kind == kind]
        announced = [model.name for model in self._fleet.models(within=within) if model.kind == kind]
        names = list(dict.fromkeys([*installed, *announced]))
        return sorted(names, key=lambda name: name == CLAUSE_MODEL)
