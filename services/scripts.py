"""Loads the Lua scripts: what each uses of shared parts and key names, and itself; one call signature for all."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from services.keys import lua_functions
from services.redis_client import Redis, Script, redis_errors

_FOLDER = files("services") / "lua"
# What several scripts use, in the order in which it is defined; no script of its own.
SHARED = (
    "prelude",
    "rates",
    "ready",
    "placement",
    "transitions",
    "run_limits",
    "runs",
    "deliveries",
    "storage",
    "files",
    "batches",
    "claim",
    "erasing",
)
_STATEMENT = re.compile(r"^(?=local |function |[A-Za-z_]\w* = )", re.MULTILINE)
_DEFINED = re.compile(r"(?:local )?function (key\.\w+|\w+)|local (\w+(?:, \w+)*)|(\w+) = ")
_NAME = re.compile(r"key\.\w+|[A-Za-z_]\w*")
_COMMENT = re.compile(r"(?:^|\s)--[^\n]*")


def script_text(name: str) -> str:
    """Full source of the script ``name`` as the server gets it: what it uses of the shared parts, and itself.

    The server runs a script's whole text each time, and defining functions takes it longer than most scripts.
    """
    own = (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")
    wanted, used = _names(own), set[int]()
    while True:
        more = {at for at, (defined, _, _) in enumerate(_shared()) if at not in used and defined & wanted}
        if not more:
            break
        used |= more
        wanted |= {name for at in more for name in _shared()[at][1]}
    return "".join(text for at, (_, _, text) in enumerate(_shared()) if at in used) + own


@cache
def _shared() -> list[tuple[frozenset[str], frozenset[str], str]]:
    """The statements of the shared parts: the names that each defines, those that it uses, and its text."""
    whole = "".join((_FOLDER / f"{part}.lua").read_text(encoding="utf-8") for part in SHARED)
    texts = _STATEMENT.split(whole.replace("--@KEYS@--", lua_functions()))
    heads = [(text, _DEFINED.match(text)) for text in texts]
    return [
        (frozenset(", ".join(filter(None, head.groups())).split(", ")), _names(text), text)
        for text, head in heads
        if head
    ]


def _names(text: str) -> frozenset[str]:
    found = set(_NAME.findall(_COMMENT.sub("", text)))
    return frozenset(found | {name.partition(".")[0] for name in found})


def pairs(flat: list[str]) -> dict[str, str]:
    """A hash as a script answers it."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


class Scripts:
    """Runs scripts by name; every one takes two JSON arguments, the options of the house and its own."""

    def __init__(self, client: Redis, options: dict[str, Any]) -> None:
        self._client = client
        self._options = json.dumps(options)
        self._scripts: dict[str, Script] = {}

    def run(self, name: str, argument: dict[str, Any]) -> Any:
        """What the script answers; raises ``Unavailable`` when the server is away."""
        script = self._script(name)
        with redis_errors():
            return script(args=[self._options, json.dumps(argument)])

    def run_each(self, name: str, arguments: Sequence[dict[str, Any]]) -> list[Any]:
        """What the script answers for each argument, sent together; an exception in the place of one that failed.

        Raises ``Unavailable`` when the server is away; then any of them may have run.
        """
        script = self._script(name)
        answers: list[Any] = [None] * len(arguments)
        unsent = list(range(len(arguments)))
        while unsent:
            with redis_errors():
                pipeline = self._client.pipeline(transaction=False)
                for at in unsent:
                    pipeline.evalsha(script.sha, 0, self._options, json.dumps(arguments[at]))
                for at, answer in zip(unsent, pipeline.execute(raise_on_error=False), strict=True):
                    answers[at] = answer
                # A server that was restarted knows no scripts; asking it each time would be a round trip more.
                unsent = [at for at in unsent if isinstance(answers[at], NoScriptError)]
                if unsent:
                    self._client.script_load(script.script)
        return [_refused(answer) for answer in answers]

    def _script(self, name: str) -> Script:
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self._client.register_script(script_text(name))
        return script


def _refused(answer: Any) -> Any:
    if not isinstance(answer, Exception):
        return answer
    try:
        with redis_errors():
            raise answer
    except Exception as error:  # the others have run
        return error
