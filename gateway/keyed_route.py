"""Routes that ask for the key before they read a body: to parse one takes the process a while, for whoever sent it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from gateway.state import Scoped, principal_of


class KeyedRoute(APIRoute):
    """A route; where any dependency of it needs a key, nobody's body is read who has none."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request; see :class:`APIRoute`."""
        handle = super().get_route_handler()

        async def admitted(request: Request) -> Response:
            await principal_of(request)
            return await handle(request)

        return admitted if _needs_key(self.dependant) else handle


def _needs_key(dependant: Dependant) -> bool:
    return isinstance(dependant.call, Scoped) or any(_needs_key(one) for one in dependant.dependencies)
