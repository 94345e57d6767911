"""Loads the Lua scripts: shared parts, key names and the script itself, one call signature for all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from services.errors import Unavailable
from services.keys import lua_functions
from services.redis_client import Redis, redis_errors

_FOLDER = files("services") / "lua"
# Every script carries them all: the server compiles a script once and finds it by its hash.
_SHARED = (
    *("prelude", "placement", "transitions", "run_limits", "runs"),
    *("deliveries", "storage", "files", "batches", "claim"),
)
# These have nothing to do with jobs, and run so often that defining those functions would be most of their work.
_SHORT = {
    "audit": ("prelude",),
    "key_rotate": ("prelude",),
    "admit": ("prelude", "rates"),
    "spend": ("prelude", "rates"),
    "webhook_add": ("prelude",),
    "webhook_change": ("prelude",),
}
# What only erasures need beside that.
_ERASING = {"erase_begin", "erase_jobs", "erase_run"}


def script_text(name: str) -> str:
    """Full source of the script ``name`` as the server gets it."""
    shared = _SHORT.get(name, (*_SHARED, "erasing") if name in _ERASING else _SHARED)
    parts = [(_FOLDER / f"{part}.lua").read_text(encoding="utf-8") for part in (*shared, name)]
    return "".join(parts).replace("--@KEYS@--", lua_functions())


def pairs(flat: list[str]) -> dict[str, str]:
    """A hash as a script answers it."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


class Scripts:
    """Runs scripts by name; every one takes two JSON arguments, the options of the house and its own."""

    def __init__(self, client: Redis, options: dict[str, Any]) -> None:
        self._client = client
        self._options = json.dumps(options)
        self._scripts: dict[str, Any] = {}

    def run(self, name: str, argument: dict[str, Any]) -> Any:
        """What the script answers; raises ``Unavailable`` when the server is away."""
        script = self._script(name)
        with redis_errors():
            return script(args=[self._options, json.dumps(argument)])

    def run_each(self, name: str, arguments: Sequence[dict[str, Any]]) -> list[Any]:
        """What the script answers for each argument, sent together; where the server refuses one, an ``Unavailable``.

        Raises ``Unavailable`` when the server is away; then any of them may have run.
        """
        script = self._script(name)
        with redis_errors():
            pipeline = self._client.pipeline(transaction=False)
            for argument in arguments:
                script(args=[self._options, json.dumps(argument)], client=pipeline)
            return [_refused(answer) for answer in pipeline.execute(raise_on_error=False)]

    def _script(self, name: str) -> Any:
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
    except Unavailable as error:
        return error
