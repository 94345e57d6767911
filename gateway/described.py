"""Values that are served as they are kept and described by a model: what workers wrote is not checked again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


@dataclass(frozen=True, slots=True)
class Described:
    """Annotates a type of loose JSON with the ``kind`` that its JSON schema is made of."""

    kind: Any

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema of the kind, its definitions among those of whatever uses it."""
        return handler(TypeAdapter(self.kind).core_schema)


def _never_null(schema: dict[str, Any]) -> None:
    for member in schema["properties"].values():
        if "default" in member:
            del member["default"]
            (kind,) = (one for one in member.pop("anyOf") if one != {"type": "null"})
            member.update(kind)


class Sparse(BaseModel):
    """Describes JSON whose optional members are missing where there is nothing to say, and never null."""

    model_config = ConfigDict(json_schema_extra=_never_null)
