"""The YAML of a playbook as nodes that know their lines, so that every refusal names the line and the reason."""

from __future__ import annotations

import re
from typing import Any, Final, cast

import yaml
from yaml.composer import Composer
from yaml.cyaml import CSafeLoader

from services.errors import InvalidRequest
from services.patterns import Pattern, PatternError, characters, parse_pattern, spanned

MAX_BYTES: Final = 8 << 20
MAX_NODES: Final = 250_000
"""Bytes of a playbook, and its keys, values and lists: reading and checking take some 20 µs for each."""
MAX_SETS: Final = 1000
MAX_SPANNED: Final = 10_000_000
"""Different sets in all patterns, and characters in all their ranges: Chinese ideographs as a range are 21,000."""
_CODE: Final = "playbook_invalid"


class _Loader(Composer, CSafeLoader):
    """Stops where a file has more nodes than any playbook needs, before it has taken the gateway's time.

    The events come from libyaml, which every wheel of PyYAML carries: ten times as fast as its Python.
    """

    nodes = 0

    def __init__(self, stream: str) -> None:
        CSafeLoader.__init__(self, stream)
        Composer.__init__(self)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            line = int(cast(Any, self).peek_event().start_mark.line) + 1
            raise InvalidRequest(
                f"line {line}: a playbook has {MAX_NODES} keys and values at most; split it", code=_CODE
            )
        return super().compose_node(parent, index)


def compose(data: bytes | str) -> yaml.Node:
    """The root of the only document in ``data``; raises what :func:`refusal` makes."""
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"the playbook is larger than {MAX_BYTES} bytes; split it", code=_CODE)
    text = data if isinstance(data, str) else _decoded(data)
    try:
        root = yaml.compose(text, Loader=_Loader)
    except RecursionError:
        raise InvalidRequest("the playbook is nested too deeply", code=_CODE) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidRequest(f"line {line}: not YAML: {error.problem}", code=_CODE) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        reason = f"the character {error.character!r} cannot stand in a playbook"
        raise InvalidRequest(f"line {line}: not YAML: {reason}", code=_CODE) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # "\UFFFFFFFF" is no character, says `chr`
        raise InvalidRequest(f"not YAML: {error}", code=_CODE) from None
    if root is None:
        raise InvalidRequest("line 1: the playbook is empty", code=_CODE)
    return root


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidRequest(f"line {line}: the playbook is not UTF-8: {error.reason}", code=_CODE) from None


def refusal(node: yaml.Node, reason: str) -> InvalidRequest:
    """The error, code ``playbook_invalid``, that names the node's line."""
    return InvalidRequest(f"line {node.start_mark.line + 1}: {reason}", code=_CODE)


class Mapping:
    """A YAML mapping whose keys are taken one by one; keys nobody knows are refused when it is made."""

    def __init__(self, node: yaml.Node, what: str, known: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            raise refusal(node, f"{what} must be a mapping with the keys {known.replace(' ', ', ')}")
        self.node = node
        self.what = what
        self.values: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = scalar(key, f"a key of {what}")
            if name not in known.split():
                raise refusal(key, f"{what} has no key `{name}`; known are {known.replace(' ', ', ')}")
            if name in self.values:
                raise refusal(key, f"`{name}` stands twice")
            self.values[name] = value

    def need(self, key: str) -> yaml.Node:
        """The node of a key that must be there."""
        if key not in self.values:
            raise refusal(self.node, f"{self.what} needs `{key}`")
        return self.values[key]

    def text(self, key: str, default: str | None = None) -> str:
        """The text of a key, which must be there unless it has a default."""
        if default is not None and key not in self.values:
            return default
        return scalar(self.need(key), f"`{key}`")

    def choice(self, key: str, known: tuple[str, ...], default: str | None = None) -> str:
        """The text of a key, one of a few words."""
        word = self.text(key, default)
        if word not in known:
            raise refusal(self.values[key], f"`{key}` must be {' or '.join(known)}, not `{word}`")
        return word

    def flag(self, key: str, default: bool) -> bool:
        """Whether a key is true."""
        word = self.text(key, str(default)).lower()
        if word not in ("true", "false"):
            raise refusal(self.values[key], f"`{key}` must be true or false, not `{word}`")
        return word == "true"

    def items(self, key: str) -> list[yaml.Node]:
        """The nodes of a list; none where the key is not there."""
        node = self.values.get(key)
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise refusal(node, f"`{key}` must be a list")
        return list(node.value)


def scalar(node: yaml.Node, what: str) -> str:
    """The text of a node, which is not empty and can be written as UTF-8."""
    if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:null":
        raise refusal(node, f"{what} must be a text")
    value = str(node.value)
    if not value.strip():
        raise refusal(node, f"{what} is empty")
    if re.search("[\0\ud800-\udfff]", value):  # only an escape can bring them
        raise refusal(node, f"{what} has a character that is no text")
    return value


def checked(node: yaml.Node, what: str, form: str, words: str) -> str:
    """The text of a node, which matches the regular expression ``form``, described by ``words``."""
    value = scalar(node, what)
    if not re.fullmatch(form, value):
        raise refusal(node, f"{what} must be {words}, not `{value}`")
    return value


class PatternReader:
    """Reads the patterns of one playbook; the one with which they would take too long together is refused."""

    def __init__(self) -> None:
        self._sets: set[str] = set()
        self._spanned = 0

    def read(self, node: yaml.Node) -> Pattern:
        """The pattern of a node."""
        source = scalar(node, "a pattern")
        try:
            pattern = parse_pattern(source)
        except PatternError as error:
            raise refusal(node, f"pattern `{source}`: {error}") from None
        sets = [chars.source for chars in characters(pattern.tree) if chars.source.startswith("[")]
        self._sets.update(sets)
        self._spanned += sum(map(spanned, sets))
        if len(self._sets) > MAX_SETS:
            raise refusal(node, f"the patterns have more than {MAX_SETS:,} different sets `[…]`; split the playbook")
        if self._spanned > MAX_SPANNED:
            raise refusal(
                node, f"the ranges of the patterns span more than {MAX_SPANNED:,} characters; split the playbook"
            )
        return pattern
