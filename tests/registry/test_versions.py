"""Versions: precedence as the specification has it, which is the latest, builds, and what references mean."""

from __future__ import annotations

import random
import uuid
from itertools import pairwise
from pathlib import Path

import pytest
import semver
from hypothesis import given
from hypothesis import strategies as st

from reference.semver_order import SPEC_ORDER, compare, in_order
from registry.conftest import Publish, write_model
from textnlp_fast.errors import InvalidInputError, VersionExistsError, VersionNotFoundError
from textnlp_fast.objectstore import open_store
from textnlp_fast.storage import Repository, VersionManager
from textnlp_fast.storage.names import (
    ModelReference,
    check_selector,
    check_version,
    is_version,
    latest_of,
    parse_reference,
    split_build,
)
from textnlp_fast.storage.registry.grammar import is_alias

NUMBERS = st.integers(0, 12) | st.integers(0, 10**20)
WORDS = st.from_regex(r"(0|[1-9][0-9]{0,9}|[0-9]*[a-zA-Z-][0-9a-zA-Z-]{0,5})", fullmatch=True)


@st.composite
def versions(draw: st.DrawFn) -> str:
    core = ".".join(str(draw(NUMBERS)) for _ in range(3))
    words = draw(st.lists(WORDS, max_size=4))
    return core + ("-" + ".".join(words) if words else "")


def versions_of(listed: list[str]) -> list[str]:
    """The versions as a repository lists them, whatever order their manifests are in."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    for version in listed:
        store.put_object(f"models/m/versions/{version}.json", b"")
    return VersionManager(store).versions("m")


def test_the_specifications_own_list_is_in_order() -> None:
    shuffled = random.Random(1).sample(SPEC_ORDER, len(SPEC_ORDER))
    assert versions_of(shuffled) == SPEC_ORDER == in_order(shuffled)


@given(st.lists(versions(), min_size=1, max_size=12, unique=True))
def test_versions_are_listed_by_precedence(listed: list[str]) -> None:
    found = versions_of(listed)
    assert sorted(found) == sorted(listed)
    assert all(compare(low, high) <= 0 for low, high in pairwise(found))


@given(versions(), versions())
def test_the_order_is_that_of_the_specification(left: str, right: str) -> None:
    assert semver.Version.parse(left).compare(right) == compare(left, right) == -compare(right, left)


@given(st.lists(versions(), min_size=1, max_size=12, unique=True))
def test_the_latest_is_the_highest_that_is_no_prerelease(listed: list[str]) -> None:
    stable = [version for version in listed if "-" not in version]
    latest = latest_of(versions_of(listed))
    assert all(compare(latest, other) >= 0 for other in stable or listed)
    assert not stable or latest in stable


# --- builds -------------------------------------------------------------------------------------------------


def test_a_build_is_noted_and_has_no_say_in_the_order(repository: Repository, publish: Publish) -> None:
    publish("m", "1.0.0+cuda13", "1.0.1+cuda12.sm-90")
    assert repository.versions("m") == ["1.0.0", "1.0.1"]
    manifest = repository.manifest("m", "1.0.0+cuda13")
    assert (manifest.version, manifest.metadata["build"]) == ("1.0.0", "cuda13")
    assert repository.manifest("m", "1.0.0") == manifest
    with pytest.raises(VersionNotFoundError, match="not of build 'cuda12'") as caught:
        repository.manifest("m", "1.0.0+cuda12")
    assert "Leave out +cuda12" in caught.value.hint


def test_two_builds_of_one_version_conflict(repository: Repository, publish: Publish, tmp_path: Path) -> None:
    publish("m", "1.0.0+cuda13")
    other = write_model(tmp_path / "other.safetensors", 1)
    with pytest.raises(VersionExistsError):
        repository.push(other, "m", "1.0.0+cuda12")
    with pytest.raises(VersionExistsError):
        repository.push(other, "m", "1.0.0")
    assert repository.manifest("m").metadata["build"] == "cuda13"


@pytest.mark.parametrize("text", ["1.0.0+", "1.0.0+a_b", "1.0.0+a..b", "1.0.0+ä", "1.0.0+" + "a" * 128, "+a"])
def test_odd_builds_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="not a version"):
        check_version(split_build(text)[0])


# --- references ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ("m", "m", None),
        ("m@1.2.0", "m", "1.2.0"),
        ("m@1.2.0+b1", "m", "1.2.0+b1"),
        ("m@latest", "m", None),
        ("m@champion", "m", "champion"),
        ("m@stage:Production", "m", "stage:production"),
        ("models:/m/1.2.0", "m", "1.2.0"),
        ("models:/org/m/1.2.0", "org/m", "1.2.0"),
        ("models:/org/m/Production", "org/m", "stage:production"),
        ("models:/org/m/latest", "org/m", None),
        ("models:/org/m@champion", "org/m", "champion"),
        ("models:/m@1.2.0", "m", "1.2.0"),
    ],
)
def test_references_are_read(text: str, name: str, version: str | None) -> None:
    reference = parse_reference(text)
    assert reference == ModelReference(name, version)
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    ["", "@", "m@", "m@1", "m@Champion", "m@stage:", "m@a b", "models:/", "models:/m", "models:/m/", "models:/m/1.0",
     "models://m/1.0.0", "m@1.0.0@2.0.0", "../m@1.0.0", "m@../1.0.0", "refs.json@1.0.0", "a/versions/b"],
)  # fmt: skip
def test_odd_references_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_reference(text)


@given(st.text(max_size=12) | versions() | st.from_regex(r"[a-z0-9.+-]{1,12}", fullmatch=True))
def test_nothing_is_both_a_version_and_an_alias(text: str) -> None:
    assert not (is_alias(text) and is_version(split_build(text)[0]))
    try:
        selector = check_selector(text)
    except InvalidInputError:
        return
    kinds = [
        selector is None,
        (selector or "").startswith("stage:"),
        is_alias(text),
        is_version(split_build(text)[0]),
    ]
    assert kinds.count(True) == 1
