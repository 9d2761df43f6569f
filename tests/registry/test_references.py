"""The documents of a registry: golden bytes, an independent reader, and whatever a hostile bucket may hold."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference import references as reference
from textnlp_fast.contents.documents import seal_document
from textnlp_fast.errors import (
    CorruptDataError,
    DigestMismatchError,
    InvalidInputError,
    MissingObjectError,
    TextnlpFastError,
    UnsupportedFormatError,
)
from textnlp_fast.objectstore import open_store
from textnlp_fast.storage.registry.document import (
    MAX_REFERENCES_BYTES,
    parse_references,
    serialize_references,
)
from textnlp_fast.storage.registry.history import every_change
from textnlp_fast.storage.registry.references import read_references, references_key
from textnlp_fast.storage.registry.rules import parse_rules, read_rules, rules_from_file, serialize_rules

GOLDEN = Path(__file__).parents[1] / "vectors" / "registry"
NAME = "org/m"


def golden() -> bytes:
    return (GOLDEN / "models" / NAME / "refs.json").read_bytes()


def golden_document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(golden())
    del document["digest"]
    return document


# --- golden bytes -------------------------------------------------------------------------------------------


def test_an_old_registry_is_read_as_it_was_written() -> None:
    references = read_references(open_store(GOLDEN), NAME)
    assert references.kept_versions() == {
        "1.1.0": ["alias champion", "stage production", "what eu would roll back to"],
        "2.0.0-rc.1": ["alias next", "pinned", "deployed to us"],
        "1.0.0": ["pinned: a paper cites it", "deployed to eu"],
    }
    assert references.tags == {"team": "nlp", "x/y": ""}
    assert references.aliases["champion"].protected
    assert references.retiring == {"0.9.0"}
    assert references.deployments["us"].state == "healthy"
    assert references.deployments["eu"].by == "alice"
    rules = read_rules(open_store(GOLDEN))
    assert rules.roles == {"release": ("alice", "ci-*")}
    assert rules.webhooks["ci"].secret_env == "HOOK_KEY"


def test_what_is_written_is_what_was_read() -> None:
    assert serialize_references(parse_references(golden())) == golden()


def test_the_independent_reader_agrees() -> None:
    """Also: replaying the history from its first change gives the document, so nothing of either is lost."""
    store = open_store(GOLDEN)
    references, document = read_references(store, NAME), reference.read_references(GOLDEN, NAME)
    assert document == golden_document()
    history = reference.read_history(GOLDEN, NAME)
    assert [change.number for change in every_change(store, references)][::-1] == [
        change["number"] for change in history
    ]
    made = reference.replayed(history)
    assert {key: made[key] for key in ("versions", "tags", "aliases", "retiring")} == {
        key: document[key] for key in ("versions", "tags", "aliases", "retiring")
    }
    for target, each in document["deployments"].items():
        assert [each["version"], *each["previous"]] == made["serves"][target]
    assert reference.read_rules(GOLDEN)["roles"] == {"release": ["alice", "ci-*"]}


def test_the_example_in_the_format_document_is_a_registry() -> None:
    text = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
    example = text.split("## References example")[1].split("```json\n")[1].split("```")[0]
    references = parse_references(example.encode())
    assert references.aliases["champion"].version == "1.1.0"
    assert references.deployments["eu-serving"].previous == ("1.0.0",)


# --- hostile documents --------------------------------------------------------------------------------------


def test_flipped_bits_are_noticed() -> None:
    data = golden()
    for place in range(0, len(data), max(1, len(data) // 400)):
        for bit in (1, 32):
            flipped = data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
            with pytest.raises((CorruptDataError, UnsupportedFormatError)):
                parse_references(flipped)


def test_cut_short_and_not_json_and_newer_are_told_apart() -> None:
    for length in (0, 1, 100, len(golden()) - 1):
        with pytest.raises(CorruptDataError):
            parse_references(golden()[:length])
    with pytest.raises(UnsupportedFormatError, match="format 2"):
        parse_references(seal_document({**golden_document(), "format": 2}))
    with pytest.raises(DigestMismatchError):
        parse_references(golden().replace(b"alice", b"mallo"))
    with pytest.raises(CorruptDataError, match="at most"):
        parse_references(b" " * (MAX_REFERENCES_BYTES + 1))
    with pytest.raises(CorruptDataError):
        parse_references(b'{"a":' * 100_000)


def change(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """An edit of the document at `a/b/0`; `...` removes."""

    def edit(document: dict[str, Any]) -> None:
        node: Any = document
        *parts, last = path.split("|")
        for part in parts:
            node = node[int(part) if isinstance(node, list) else part]
        key: Any = int(last) if isinstance(node, list) else last
        if value is ...:
            del node[key]
        else:
            node[key] = value

    return edit


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model", "../m"),
        ("model", ...),
        ("revision", -1),
        ("revision", 7),
        ("revision", True),
        ("revision", 1 << 60),
        ("write_id", "0" * 32),
        ("history", []),
        ("history", {}),
        ("history|0", ...),
        ("history|3", ...),
        ("history|-1", ...),
        ("history|0|number", 0),
        ("history|0|id", "short"),
        ("history|0|at", "yesterday"),
        ("history|0|by", ""),
        ("history|0|by", "a\nb"),
        ("history|0|by", "x" * 129),
        ("history|0|action", "rm -rf"),
        ("history|0|detail", {"a": 1}),
        ("history|0|detail", {"a": "x" * 1025}),
        ("history|0|detail", {str(number): "" for number in range(17)}),
        ("history|0", "text"),
        ("archive", ...),
        ("archive", [64]),
        ("archive", [0, "0" * 64]),
        ("archive", [63, "0" * 64]),
        ("archive|1", "../../secret"),
        ("versions", []),
        ("versions", {"1.0": {}}),
        ("versions", {"../x": {}}),
        ("versions|1.0.0|stage", "Production"),
        ("versions|1.0.0|stage", 7),
        ("versions|1.0.0|pinned", ["x"]),
        ("versions|1.0.0|tags", {"a b": "c"}),
        ("versions|1.0.0|tags", {"a": 1}),
        ("versions|1.0.0|tags", []),
        ("versions|1.0.0", None),
        ("tags", {"a": "x" * 501}),
        ("tags", {"a": "\ud800"}),
        ("aliases", {"1.0.0": {"version": "1.0.0", "protected": False}}),
        ("aliases", {"latest": {"version": "1.0.0", "protected": False}}),
        ("aliases|champion|version", "champion"),
        ("aliases|champion|version", ...),
        ("aliases|champion|protected", 1),
        ("aliases|champion", "1.0.0"),
        ("deployments", {"-x": {}}),
        ("deployments|eu|version", "x"),
        ("deployments|eu|since", "2025-01-31"),
        ("deployments|eu|by", None),
        ("deployments|eu|note", "x" * 501),
        ("deployments|eu|state", None),
        ("deployments|eu|previous", ["1.0.0", "1.0.0"]),
        ("deployments|eu|previous", ["1.0.0"]),
        ("deployments|eu|previous", ["1.1.0", "1.0.0"] * 40),
        ("deployments|eu|number", 10**9),
        ("deployments|eu|number", 0),
        ("retiring", ["1"]),
        ("retiring", "1.0.0"),
    ],
)
def test_what_breaks_a_rule_is_corrupt(path: str, value: object) -> None:
    document = golden_document()
    change(path, value)(document)
    try:
        data = seal_document(document)
    except UnicodeEncodeError:
        data = json.dumps({**document, "digest": "0" * 64}).encode()
    with pytest.raises(CorruptDataError):
        parse_references(data)


def test_more_than_a_reader_takes_is_corrupt() -> None:
    document = golden_document()
    document["versions"] = {f"{number}.0.0": {} for number in range(100_001)}
    with pytest.raises(CorruptDataError, match="at most 100000"):
        parse_references(seal_document(document))


def test_keys_that_a_reader_does_not_know_are_ignored() -> None:
    assert parse_references(seal_document({**golden_document(), "later": 1})).model == NAME


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
TOP = list(golden_document()) if (GOLDEN / "registry.json").exists() else ["model"]


@given(st.sampled_from(TOP), JSON)
def test_any_value_in_any_place_is_read_or_refused(key: str, value: object) -> None:
    try:
        data = seal_document({**golden_document(), key: value})
    except UnicodeEncodeError:
        return
    try:
        references = parse_references(data)
    except (CorruptDataError, UnsupportedFormatError):
        return
    references.kept_versions()
    assert parse_references(serialize_references(references)) == references


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(TextnlpFastError):
        parse_references(data)
    with pytest.raises(TextnlpFastError):
        parse_rules(data)


def test_references_of_another_model_are_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.put_object(references_key("other"), golden())
    with pytest.raises(CorruptDataError, match="stored in its place"):
        read_references(store, "other")


@pytest.mark.parametrize("damage", ["gone", "flipped", "another"])
def test_a_damaged_block_hides_no_newer_change(tmp_path: Path, damage: str) -> None:
    root = tmp_path / "registry"
    shutil.copytree(GOLDEN, root)
    block = min((root / "models" / NAME / "history").iterdir())
    if damage == "gone":
        block.unlink()
    elif damage == "flipped":
        block.write_bytes(block.read_bytes().replace(b"alice", b"alicf"))
    else:
        document = json.loads(block.read_bytes())
        del document["digest"]
        document["changes"][0]["by"] = "mallory"
        block.write_bytes(seal_document(document))
    store = open_store(root)
    references = read_references(store, NAME)
    read = every_change(store, references)
    seen = [next(read).number for _ in range(len(references.history))]
    assert seen == list(range(references.revision, references.revision - len(seen), -1))
    with pytest.raises((CorruptDataError, MissingObjectError)):
        list(read)


# --- rules --------------------------------------------------------------------------------------------------


def test_rules_are_written_as_they_were_read() -> None:
    data = (GOLDEN / "registry.json").read_bytes()
    rules = parse_rules(data)
    again = json.loads(serialize_rules(rules, by="alice"))
    old = json.loads(data)
    for each in (again, old):
        del each["digest"], each["changed_at"]
    assert again == old


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("lifecycle", 7),
        ("lifecycle|stages", []),
        ("lifecycle|stages|0|name", "A B"),
        ("lifecycle|stages", [{"name": f"s{number}"} for number in range(65)]),
        ("lifecycle|moves|0|to", "nowhere"),
        ("lifecycle|moves|0|role", "nobody"),
        ("roles", []),
        ("roles|release", "alice"),
        ("roles|release", [7]),
        ("roles", {"Re lease": []}),
        ("protected_aliases", "nobody"),
        ("protected_aliases", 7),
        ("administer", "nobody"),
        ("webhooks|ci|url", "http://example.org/"),
        ("webhooks|ci|secret", "a key"),
        ("revision", 0),
        ("write_id", ""),
    ],
)
def test_rules_that_break_a_rule_are_corrupt(path: str, value: object) -> None:
    document = json.loads((GOLDEN / "registry.json").read_bytes())
    del document["digest"]
    change(path, value)(document)
    with pytest.raises(CorruptDataError):
        parse_rules(seal_document(document))


def test_broken_rules_are_not_taken_for_no_rules() -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    store.put_object("registry.json", b"{}")
    with pytest.raises(CorruptDataError):
        read_references(store, "m")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON)
def test_rules_files_of_any_content_are_read_or_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "rules.json"
    for document in (value, {"lifecycle": value}, {"roles": value}, {"webhooks": value}):
        path.write_text(json.dumps(document))
        with suppress(InvalidInputError):
            rules_from_file(path)
