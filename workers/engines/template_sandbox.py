"""Jinja's sandbox with a bound on what a template may build, as chat templates come with files that nobody vouches for.

Every operation that makes text or lists is charged by what it makes; what one operation could make is bounded before it
runs. Time and output are bounded by the caller (``workers/engines/chat.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from itertools import islice
from typing import Any, Final, cast

from jinja2 import TemplateError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Characters and items that one rendering may make in all, and that one operation could make at most.
MAX_MADE: Final = 2**27
MAX_STEP: Final = 2**28
MAX_ITEMS: Final = 2**20
MAX_BITS: Final = 4096


class Overrun(TemplateError):
    """The template ran into a limit."""


class _Generator(CodeGenerator):
    """Compiles ``~`` to a call that is charged."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - Jinja's name
        self.write("environment.join_texts((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which arithmetic, joining, filters and methods make nothing huge."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])
    code_generator_class = _Generator

    def __init__(self, functions: dict[str, Any]) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], finalize=self._checked
        )
        self._made = threading.local()
        self.filters = {name: self._guarded(call) for name, call in self.filters.items() if name != "format"}
        names = cast(dict[str, Any], self.globals)
        for name in ("lipsum", "cycler", "joiner"):
            names.pop(name)
        names.update(functions)

    def begin(self) -> None:
        """Start to count for a rendering in this thread."""
        self._made.count = 0

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Run ``left operator right`` where its result stays small."""
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" or (operator in "*%" and not numbers):
            raise Overrun(f"the operator {operator} is not allowed here")
        if any(isinstance(side, int) and side.bit_length() > MAX_BITS for side in (left, right)):
            raise Overrun("it calculates with huge numbers")
        if not numbers:
            self._charge(weight(left) + weight(right))
        return super().call_binop(context, operator, left, right)

    def join_texts(self, parts: Iterable[Any]) -> str:
        """What ``~`` makes of its parts."""
        return self.concat([str(self._checked(part)) for part in parts])

    def concat(self, parts: Iterable[str]) -> str:  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
        """Join the pieces of a block."""
        pieces: list[str] = []
        for part in parts:
            self._charge(len(part))
            pieces.append(part)
        return "".join(pieces)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Call a function or method; one of a text or a list only where its result stays small."""
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str | list | tuple | dict):
            self._bound(owner, (*args, *kwargs.values()))
            return self._charged(super().call(context, obj, *args, **kwargs))
        return super().call(context, obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Any:
        """Refuse ``str.format``, whose widths would make huge texts."""
        if getattr(value, "__name__", "") in ("format", "format_map") and isinstance(
            getattr(value, "__self__", None), str
        ):
            raise Overrun("the method format is not allowed here")
        return None

    def _guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        skipped = 1 if hasattr(function, "jinja_pass_arg") else 0

        @wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            head, rest = args[:skipped], list(args[skipped:])
            if rest and isinstance(rest[0], Iterator):
                rest[0] = list(islice(cast(Iterator[Any], rest[0]), MAX_ITEMS))
            if rest:
                self._bound(rest[0], (*rest[1:], *kwargs.values()))
            return self._charged(function(*head, *rest, **kwargs))

        return guarded

    def _bound(self, subject: Any, others: Iterable[Any]) -> None:
        """Refuse an operation that could make too much: as much as its subject for each unit of its arguments."""
        if (1 + weight(subject)) * (1 + sum(weight(other) for other in others)) > MAX_STEP:
            raise Overrun("one of its steps could make a huge value")

    def _charged(self, value: Any) -> Any:
        self._charge(weight(value))
        return value

    def _charge(self, amount: int) -> None:
        self._made.count = getattr(self._made, "count", 0) + amount
        if self._made.count > MAX_MADE:
            raise Overrun(f"it makes more than {MAX_MADE:,} characters on its way")

    def _checked(self, value: Any) -> Any:
        """``value`` before it is written out, where nesting could make its text far longer than it is."""
        if not isinstance(value, str):
            self._charge(weight(value))
        return value


def weight(value: Any) -> int:
    """About how many characters ``value`` stands for, counted up to the limit; a number stands for itself."""
    total = 0
    left: list[Any] = [value]
    while left and total <= MAX_STEP:
        item = left.pop()
        total += 1
        if isinstance(item, str):
            total += len(item)
        elif isinstance(item, bool):
            pass
        elif isinstance(item, int):
            total += abs(item)
        elif isinstance(item, dict):
            members = cast(dict[Any, Any], item)
            left += [*members.keys(), *members.values()]
        elif isinstance(item, list | tuple):
            left += cast(list[Any], item)
    return total
