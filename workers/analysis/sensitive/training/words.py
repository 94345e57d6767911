"""Reads ``words.yaml``: short lists of our own."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml

_RAW: dict[str, Any] = yaml.safe_load(
    resources.files("workers.analysis.sensitive.training").joinpath("words.yaml").read_text("utf-8")
)

FLAGS: dict[str, str] = _RAW.pop("flags")
"""Flag → words: honorifics, company forms, street words, parts of buildings, peoples and faiths, regions, dates."""
WORDS: dict[str, list[str]] = {
    name: words if isinstance(words, list) else words.split() for name, words in _RAW.items()
}
"""What made-up names are put together from: offices, terms, work, workers, stems, endings, forms, fields."""
