"""Makes a method of a flow: one definition that blocks in :class:`casemill.Casemill` and awaits in its async twin."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from casemill.drivers import Awaiting, Blocking
from casemill.retry import RetryPolicy
from casemill.steps import Emitting, Flow

D = TypeVar("D", Blocking, Awaiting)
P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E")


class Resource(Generic[D]):
    """Has operations, which its driver carries out."""

    def __init__(self, driver: D, retry: RetryPolicy) -> None:
        self.driver = driver
        self.retry = retry


class Operation(Generic[P, T]):
    """A method whose flow answers a value: ``T`` where it blocks, a coroutine of ``T`` where it awaits."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        self.flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, resource: None, owner: Any = None) -> Operation[P, T]: ...
    @overload
    def __get__(self, resource: Resource[Blocking], owner: Any = None) -> Callable[P, T]: ...
    @overload
    def __get__(self, resource: Resource[Awaiting], owner: Any = None) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, resource: Resource[Any] | None, owner: Any = None) -> Any:
        """The method of a client's resource; of the class, the operation itself."""
        return self if resource is None else _method(self.flow, resource, resource.driver.run)


class Iteration(Generic[P, E]):
    """A method whose flow emits items: an iterator of ``E`` where it blocks, an async iterator where it awaits."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Emitting[E, Any]]) -> None:
        self.flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, resource: None, owner: Any = None) -> Iteration[P, E]: ...
    @overload
    def __get__(self, resource: Resource[Blocking], owner: Any = None) -> Callable[P, Iterator[E]]: ...
    @overload
    def __get__(self, resource: Resource[Awaiting], owner: Any = None) -> Callable[P, AsyncIterator[E]]: ...
    def __get__(self, resource: Resource[Any] | None, owner: Any = None) -> Any:
        """As :meth:`Operation.__get__`."""
        return self if resource is None else _method(self.flow, resource, resource.driver.iterate)


def operation(flow: Callable[Concatenate[Any, P], Flow[T]]) -> Operation[P, T]:
    """Decorates a flow that answers a value."""
    return Operation(flow)


def iteration(flow: Callable[Concatenate[Any, P], Emitting[E, Any]]) -> Iteration[P, E]:
    """Decorates a flow that emits items."""
    return Iteration(flow)


def _method(flow: Any, resource: Resource[Any], carry_out: Callable[[Any], Any]) -> Callable[..., Any]:
    bound = flow.__get__(resource)

    @functools.wraps(bound)
    def method(*args: Any, **kwargs: Any) -> Any:
        return carry_out(bound(*args, **kwargs))

    return method
