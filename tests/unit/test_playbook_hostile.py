"""Whatever is given as a playbook: it loads, or it is refused as a playbook, and nothing else happens."""

from __future__ import annotations

import re
from importlib import resources

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from services.errors import InvalidRequest
from services.playbook_yaml import MAX_BYTES, MAX_NODES
from services.playbooks import INCLUDED, included_text, load_playbook

GOOD = """\
name: x
categories:
  - {id: c, title: C, weight: 1, literals: [c, {text: d, whole_words: false}], patterns: ['e{1,3}'], risk: {present: y}}
rules:
  - {id: r, title: R, kind: limit, category: c, severity: low, at_most: 3 days, where: ['f'], reason: Why.}
"""
SCALARS = st.sampled_from(
    [
        "x",
        "c",
        "limit",
        "one_of",
        "required",
        "clause",
        "anchor",
        "1",
        "0.5",
        "30 days",
        "low",
        "~",
        "true",
        "a.*",
        "(",
        "é",
        "",
    ]
) | st.text(max_size=8)
KEYS = st.sampled_from(
    sorted(set(re.findall(r"\w+(?=:)", GOOD)) | {"values", "unless", "at_least", "description", "kind"})
)
TREES = st.recursive(
    SCALARS | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=6),
    max_leaves=25,
)


def refused_or_good(data: bytes | str) -> None:
    try:
        playbook = load_playbook(data)
    except InvalidRequest as error:
        assert error.code in ("playbook_invalid",)
        return
    assert len(playbook.version) == 64
    playbook.title.encode()


@given(st.text() | st.binary())
@example('name: "\\UFFFFFFFF"')
@example('name: x\ntitle: "\\ud800"\ncategories: []')
@example("name: !!binary x")
@example("<<: {a: b}")
@example("? [a, b]\n: c")
@example("%YAML 9.9\n---\na")
@example("&a *a")
def test_any_bytes_are_read_or_refused(data: bytes | str) -> None:
    refused_or_good(data)


@given(TREES)
def test_any_yaml_is_read_or_refused(tree: object) -> None:
    refused_or_good(yaml.safe_dump(tree, allow_unicode=True))


@given(
    st.integers(0, len(GOOD)),
    st.integers(0, 12),
    st.text(alphabet="\t \n\r-:[]{}&*!|>'\"%@`#?,\\x00\ufeff\ud7ffé1a", max_size=6),
)
def test_a_playbook_with_any_damage_is_read_or_refused(place: int, cut: int, put: str) -> None:
    refused_or_good(GOOD[:place] + put + GOOD[place + cut :])


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"name: x\n# \xff", "line 2: the playbook is not UTF-8"),
        ("name: x\n\n\x07", "line 3: not YAML: the character 7 cannot stand"),
        (GOOD.replace("  - {id: c", "\t- {id: c"), "line 3: not YAML: found character that cannot start"),
        (GOOD.replace("title: C", 'title: "\\ud800"'), "line 3: not YAML: found invalid Unicode character escape"),
        (GOOD.replace("title: C", 'title: "a\\0"'), "line 3: `title` has a character that is no text"),
        ("a: b\n" * MAX_NODES, f"line {MAX_NODES // 2}: a playbook has {MAX_NODES} keys and values at most"),
        ("#" * (MAX_BYTES + 1), "larger than"),
        (GOOD + "---\n" + GOOD, "line 6: not YAML"),
    ],
)
def test_refusals_name_line_and_reason(data: bytes | str, detail: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        load_playbook(data)
    assert detail in caught.value.detail


def test_a_byte_order_mark_and_other_line_ends_change_nothing() -> None:
    version = load_playbook(GOOD).version
    assert load_playbook(b"\xef\xbb\xbf" + GOOD.encode()).version == version
    assert load_playbook("\ufeff" + GOOD).version == version
    assert load_playbook(GOOD.replace("\n", "\r\n")).version == version


@pytest.mark.parametrize("name", INCLUDED)
def test_the_text_of_what_comes_along_is_the_file(name: str) -> None:
    assert included_text(name).encode() == resources.files("services").joinpath(f"{name}_playbook.yaml").read_bytes()


def test_a_category_that_stands_often_by_alias_is_refused_at_once() -> None:
    bomb = "".join(f"  - &b{n} [{', '.join([f'*b{n - 1}'] * 9) if n else 'x'}]\n" for n in range(12))
    refused_or_good(f"name: x\ncategories:\n{bomb}")
