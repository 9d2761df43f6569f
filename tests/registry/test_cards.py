"""Model cards: the README's front matter is read like YAML does, and nothing else of the version is."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.conftest import write_model
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.objectstore import open_store
from textnlp_fast.storage import Repository
from textnlp_fast.storage.registry.cards import read_card
from textnlp_fast.storage.registry.front_matter import split_front_matter

CARD = """\
---
language:
- en
- de
license: apache-2.0
library_name: transformers   # of any version
tags: [text-generation, "a, b", 'it''s']
base_model:
  - meta-llama/Llama-3.1-8B
datasets: []
description: >-
  Folded text
  in two lines.

  And a paragraph.
notes: |
  one
    two
widget:
- text: "Hello \\u00e9\\n"
  example_title: 'x: y'
model-index:
  - name: mine
    results:
      - task:
          type: text-generation
        metrics:
          - type: accuracy
            value: 0.71
            verified: true
empty:
"quoted key": yes
---

# Mine

It does things.
"""


def test_a_card_is_read_like_yaml_reads_it() -> None:
    yaml = pytest.importorskip("yaml")
    metadata, text = split_front_matter(CARD)
    expected = yaml.load(CARD.split("---\n")[1], yaml.BaseLoader)
    assert metadata == expected
    assert text == "# Mine\n\nIt does things.\n"


@pytest.mark.parametrize("text", ["# Only text", "", "--- no\n", "\n---\na: b\n---\n"])
def test_a_readme_without_front_matter_is_all_text(text: str) -> None:
    assert split_front_matter(text) == ({}, text)


VALUES = st.recursive(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=4)
        | st.dictionaries(st.from_regex(r"[a-z][a-z_-]{0,8}", fullmatch=True), inner, min_size=1, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z_-]{0,8}", fullmatch=True), VALUES, min_size=1, max_size=5))
def test_what_a_yaml_library_writes_is_read_back(document: dict[str, Any]) -> None:
    yaml = pytest.importorskip("yaml")
    for style in (None, '"'):
        written = yaml.dump(document, allow_unicode=True, default_style=style, width=20)
        expected = yaml.load(written, yaml.BaseLoader)
        assert split_front_matter(f"---\n{written}---\nbody") == (expected, "body")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("a: &x b", "line 2 of the front matter: anchors"),
        ("a: b\nc: *x", "line 3 of the front matter: anchors"),
        ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]", "anchors"),
        ("a: !!python/object/apply:os.system [ls]", "tags"),
        ("!x\na: b", "tags"),
        ("a: b\na: c", "line 3 of the front matter: the key 'a' is there twice"),
        ("? [a]\n: b", "a key is not text"),
        ("a: [b, c", "line"),
        ('a: "b', "line"),
        ("\ta: b", "line"),
        ("  a: b\n c: d", "line"),
        ("a: b: c", "line"),
        ("- a\n- b", "not a mapping"),
        ("a", "not a mapping"),
        ("\n".join("  " * depth + "a:" for depth in range(200)), "nested more than"),
        ("a: " + "[" * 900, "nested more than"),
        ("a: \x01", "front matter: "),
        ("a: b\n" * 150_000, "twice"),
        ("#" * (1 << 21), "characters"),
    ],
    ids=range(19),
)
def test_what_is_not_plain_is_refused_with_its_line(head: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        split_front_matter(f"---\n{head}\n---\ntext")


@given(st.text(max_size=200) | st.text(alphabet="ab:-[]{}\"'|>#&*\n \t,", max_size=200))
def test_any_text_is_read_or_refused(head: str) -> None:
    try:
        metadata, _ = split_front_matter(f"---\n{head}\n---\n")
    except InvalidInputError:
        return
    json.dumps(metadata)


@pytest.mark.parametrize(
    "seed",
    [
        "- - - " * 300_000,
        "a: [" + "x, " * 700_000 + "]",
        "a: [\n" + " x,\n" * 15_000 + " ]",
        "a: '" + "''" * 1_000_000,
        "#" * 2_000_000,
        "a" + " " * 2_000_000,
        "a:\n" + "  " * 900_000 + ":",
        "\n".join("- a: b" for _ in range(19_000)),
        '"' * 2_000_000,
        "a: |\n" + "  x\n" * 19_000,
    ],
    ids=range(10),
)
def test_large_heads_are_read_in_proportion(seed: str) -> None:
    with suppress(InvalidInputError):
        split_front_matter(f"---\n{seed}\n---\n")


def test_the_card_of_a_version_is_read_without_its_tensors(tmp_path: Path) -> None:
    model = tmp_path / "model"
    write_model(model / "model.safetensors")
    repository = Repository.open(tmp_path / "repository", create=True)
    repository.push(model, "m", "0.9.0")
    (model / "README.md").write_text(CARD)
    repository.push(model, "m", "1.0.0")
    (model / "README.md").write_text("---\na: *b\n---\nStill text.\n")
    repository.push(model, "m", "1.1.0")
    tensors = {
        extent.object
        for version in ("0.9.0", "1.0.0")
        for entry in repository.manifest("m", version).files
        if entry.kind == "safetensors"
        for part in entry.parts
        for extent in repository.manifest("m", version).contents[part].extents
    }
    for digest in tensors:
        open_store(tmp_path / "repository").delete(f"objects/{digest[:2]}/{digest}")
    assert read_card(repository, "m", "0.9.0") is None
    card = read_card(repository, "m", "1.0.0")
    assert card is not None
    assert card.metadata["license"] == "apache-2.0"
    assert card.text.startswith("# Mine")
    broken = read_card(repository, "m", "1.1.0")
    assert broken is not None
    assert "anchors" in broken.problem
    assert "Still text." in broken.text
