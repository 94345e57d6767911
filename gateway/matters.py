"""Keys for named matters: what they see, decided before a route runs wherever the path says what it is about.

What such a key does not see answers exactly as what does not exist, whoever it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

from gateway.openapi.raises import raises
from services.documents import Document
from services.errors import Forbidden, NotFound, unknown
from services.principal import Principal

if TYPE_CHECKING:
    from gateway.state import Gateway


def _matter_of_document(gateway: Gateway, tenant: str, name: str) -> str | None:
    try:
        return gateway.documents.get(tenant, name).matter
    except NotFound:  # who has erased it may ask for that again
        return gateway.erasures.matter_of(tenant, name)


# Path parameter → the matter of what it names; raises `NotFound`. A parameter that does not stand here shuts its route
# for keys with matters.
_MATTER_OF: Final[dict[str, Callable[[Gateway, str, str], str | None]]] = {
    "matter": lambda _gateway, _tenant, name: name,
    "document_id": _matter_of_document,
    "job_id": lambda gateway, tenant, name: gateway.lifecycle.get(tenant, name).matter,
    "run_id": lambda gateway, tenant, name: gateway.runs.get(tenant, name).matter,
    "schedule_id": lambda gateway, tenant, name: gateway.schedules.get(tenant, name).work.matter,
}


def tells_matter(parameters: Collection[str]) -> bool:
    """Whether a path with these parameters says what it is about, so that keys for that matter may come."""
    return bool(parameters) and set(parameters) <= _MATTER_OF.keys()


def check_path(gateway: Gateway, principal: Principal, parameters: dict[str, str]) -> None:
    """Refuse a key with matters unless the path names things of its matters alone.

    Raises ``NotFound`` for things of other matters, ``Forbidden`` where the path does not tell.
    """
    if not tells_matter(parameters):
        raise Forbidden(
            "this key is for named matters, and this is about more than one; use a key without matters",
            code="matter_forbidden",
        )
    for parameter, name in parameters.items():
        if not principal.sees(_MATTER_OF[parameter](gateway, principal.tenant, name)):
            raise unknown(parameter.removesuffix("_id"), name)


@raises("document_unknown")
def visible_document(gateway: Gateway, principal: Principal, document: str) -> Document:
    """A document that a request's body names; raises ``NotFound``."""
    found = gateway.documents.get(principal.tenant, document)
    if not principal.sees(found.matter):
        raise unknown("document", document)
    return found
