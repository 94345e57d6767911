"""Renders a conversation into the prompt a model was trained on; what people wrote can never pose as control tokens.

Templates come with model files and are treated as untrusted: sandboxed, with limits on time, size and arithmetic.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Final, NoReturn

from jinja2 import TemplateError

from services.errors import InvalidRequest, ModelError
from workers.engines.base import Messages, check_messages
from workers.engines.template_sandbox import Overrun, Sandbox

RENDER_SECONDS: Final = 2.0
MAX_TEMPLATE_CHARS: Final = 256 * 1024
MAX_EXPANSION: Final = 4 * 2**20

# Unicode noncharacters, meant for a program's own use, stand around each message's content while it is rendered.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"


class ChatPrompt(str):
    """A prompt that a template made: control tokens count in the template's own parts, never between the marks.

    Any other string, this one too after it left the process, is plain text in which no control token counts.
    """

    __slots__ = ()

    def parts(self) -> list[tuple[str, bool]]:
        """The text in pieces, each with whether a person wrote it."""
        pieces: list[tuple[str, bool]] = []
        rest = str(self)
        while rest:
            before, _, rest = rest.partition(_OPEN)
            written, _, rest = rest.partition(_CLOSE)
            pieces += [(before.replace(_CLOSE, ""), False), (written.replace(_OPEN, ""), True)]
        return [piece for piece in pieces if piece[0]]

    def plain(self) -> str:
        """The text without marks."""
        return unmarked(str(self))


def unmarked(text: str) -> str:
    """``text`` without the marks."""
    return text.replace(_OPEN, "").replace(_CLOSE, "")


def _refuse(message: str) -> NoReturn:
    raise InvalidRequest(f"The model's chat template refuses these messages: {message}", code="messages_invalid")


def _now(form: str) -> str:
    return datetime.now(UTC).strftime(form)


class ChatTemplate:
    """The chat template of one model; without one, a plain format that any base model can go on with.

    The plain format is ``System: …``, ``User: …`` and ``Assistant: …``, one paragraph a message, then ``Assistant:``.
    """

    def __init__(self, source: str | None, *, bos: str, eos: str) -> None:
        """Compile ``source``. Raises ``ModelError`` ``chat_template_broken``."""
        self._bos, self._eos = bos, eos
        self._template: Any = None
        if source is None:
            return
        if len(source) > MAX_TEMPLATE_CHARS:
            raise ModelError("The model's chat template is longer than 256 KiB.", code="chat_template_broken")
        self._sandbox = Sandbox({"raise_exception": _refuse, "strftime_now": _now})
        try:
            self._template = self._sandbox.from_string(source)
        except TemplateError as error:
            raise _broken(error) from error

    def render(self, messages: Messages) -> str:
        """The prompt for ``messages``; a :class:`ChatPrompt` where the model has a template.

        Raises ``InvalidRequest`` ``messages_invalid``, ``ModelError`` ``chat_template_broken``.
        """
        plain = check_messages(messages)
        if self._template is None:
            lines = [f"{item['role'].capitalize()}: {unmarked(item['content']).strip()}" for item in plain]
            return "\n\n".join([*lines, "Assistant:"])
        marked = [{**item, "content": _marked(item["content"])} for item in plain]
        limit = MAX_EXPANSION + 4 * sum(len(item["content"]) for item in marked)
        values: dict[str, Any] = {
            "messages": marked, "add_generation_prompt": True, "bos_token": self._bos, "eos_token": self._eos,
            "tools": None, "documents": None,
        }  # fmt: skip
        try:
            return ChatPrompt(_within_limits(lambda: self._pieces(values), limit))
        except InvalidRequest:
            raise
        except Exception as error:
            raise _broken(error) from error

    def _pieces(self, values: dict[str, Any]) -> Sequence[str]:
        self._sandbox.begin()
        return self._template.generate(**values)


def _broken(error: Exception) -> ModelError:
    return ModelError(
        f"The model's chat template fails: {error}. Send a plain prompt instead.", code="chat_template_broken"
    )


def _marked(content: str) -> str:
    """``content`` between marks, white space outside of them, where templates look for it to trim."""
    clean = unmarked(content)
    core = clean.strip()
    if not core:
        return clean
    start = clean.index(core)
    return f"{clean[:start]}{_OPEN}{core}{_CLOSE}{clean[start + len(core) :]}"


def _within_limits(pieces: Callable[[], Sequence[str]], limit: int) -> str:
    """Join the pieces, stopping a template that loops or swells.

    Runs in a thread of its own, whose trace function ends it at the deadline: a template's loops are Python code, so a
    line event comes in every round. A single step that never returns is left behind with its thread.
    """
    outcome: list[str | BaseException] = []
    deadline = time.monotonic() + RENDER_SECONDS

    def trace(_frame: FrameType, _event: str, _argument: object) -> Any:
        if time.monotonic() > deadline:
            raise Overrun(f"it runs longer than {RENDER_SECONDS:g} seconds")
        return trace

    def run() -> None:
        sys.settrace(trace)
        try:
            parts: list[str] = []
            size = 0
            for piece in pieces():
                size += len(piece)
                if size > limit:
                    raise Overrun(f"it makes more than {limit:,} characters")
                parts.append(piece)
            outcome.append("".join(parts))
        except BaseException as error:
            outcome.append(error)
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=run, name="chat-template", daemon=True)
    thread.start()
    thread.join(RENDER_SECONDS + 1.0)
    if not outcome:
        raise Overrun(f"it runs longer than {RENDER_SECONDS:g} seconds")
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    return result
