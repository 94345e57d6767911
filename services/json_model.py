"""Requests as JSON means them: a number is none but a number, not ``true``, which Python takes for 1, nor ``"1"``."""

from __future__ import annotations

import types
from typing import Annotated, Any, Union, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, model_validator

_WORDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "list", dict: "object"}


class JsonModel(BaseModel):
    """A model that knows all its members, and takes none for what it is not in JSON.

    Pydantic's own strictness would refuse times, which are texts in JSON, and 2.0 where a whole number is asked for.
    """

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _as_in_json(cls, value: Any) -> Any:
        if isinstance(value, dict):
            given = cast(dict[str, Any], value)
            for name, field in cls.model_fields.items():
                known = field.alias or name
                one = given.get(known)
                if one is not None and not _is(field.annotation, one):  # what null means is the member's own to say
                    raise ValueError(f"{known}: Input should be a valid {_word(field.annotation)}")
        return cast(Any, value)


def _is(kind: Any, value: Any) -> bool:
    """Whether a value of JSON is of a type; of types that JSON has not, pydantic knows more."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _is(inner[0], value)
    if origin in (Union, types.UnionType):
        return any(_is(one, value) for one in inner)
    if origin is list:
        return isinstance(value, list) and _all_are(inner[0], cast(list[Any], value))
    if origin is dict:
        return isinstance(value, dict) and all(_is(inner[1], one) for one in cast(dict[str, Any], value).values())
    if kind in (int, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) if kind in (str, bool, types.NoneType) else True


def _all_are(kind: Any, values: list[Any]) -> bool:
    """The same for every value of a list; for tokens and texts, of which a body can have a million, at once."""
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if plain in (int, float):
        return set(map(type, values)) <= {int, float}
    return set(map(type, values)) <= {str} if plain is str else all(_is(kind, one) for one in values)


def _word(kind: Any) -> str:
    """What a type is called in JSON, the first of several."""
    if get_origin(kind) in (Annotated, Union, types.UnionType):
        return _word(get_args(kind)[0])
    return _WORDS.get(get_origin(kind) or kind, "value")
