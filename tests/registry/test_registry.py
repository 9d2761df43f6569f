"""Stages, aliases, tags, pins and removal: what may be done, what it leaves behind, and what is refused."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import textnlp_fast
from registry.conftest import write_model
from textnlp_fast.errors import (
    ConflictError,
    InvalidInputError,
    ModelNotFoundError,
    NotAllowedError,
    VersionNotFoundError,
)
from textnlp_fast.storage.registry.lifecycle import Lifecycle, Move, Stage, read_lifecycle
from textnlp_fast.storage.registry.registry import Registry
from textnlp_fast.storage.registry.rules import Rules, read_rules, rules_from_file

# --- stages -------------------------------------------------------------------------------------------------


def test_a_version_moves_along_the_lifecycle(registry: Registry) -> None:
    assert registry.references("m").stage_of("1.0.0") == "draft"
    registry.move("m", "1.0.0", "staging")
    registry.move("m", "1.0.0", "Production", note="evaluated")
    references = registry.references("m")
    assert references.stage_of("1.0.0") == "production"
    assert references.kept_versions() == {"1.0.0": ["stage production"]}
    last = references.history[-1]
    assert (last.action, last.by) == ("stage", "alice")
    assert last.detail == {"version": "1.0.0", "from": "staging", "to": "production", "note": "evaluated"}


def test_production_holds_one_version_and_the_one_before_is_archived(registry: Registry) -> None:
    for version in ("1.0.0", "1.1.0"):
        registry.move("m", version, "staging")
    registry.move("m", "1.0.0", "production")
    changes = registry.move("m", "1.1.0", "production")
    assert [(each.detail["version"], each.detail["to"]) for each in changes] == [
        ("1.1.0", "production"),
        ("1.0.0", "archived"),
    ]
    assert len({each.id for each in changes}) == 1
    references = registry.references("m")
    assert [references.stage_of(each) for each in ("1.0.0", "1.1.0")] == ["archived", "production"]
    assert registry.repository.manifest("m", "stage:production").version == "1.1.0"


def test_a_move_that_is_not_there_is_refused_with_those_that_are(registry: Registry) -> None:
    with pytest.raises(InvalidInputError, match="no move leads to production") as caught:
        registry.move("m", "1.0.0", "production")
    assert "staging, archived" in caught.value.hint
    with pytest.raises(InvalidInputError, match="no stage 'prod'"):
        registry.move("m", "1.0.0", "prod")
    with pytest.raises(VersionNotFoundError):
        registry.move("m", "9.0.0", "staging")
    with pytest.raises(ModelNotFoundError):
        registry.move("n", "1.0.0", "staging")
    assert registry.references("m").revision == 0


def test_moving_to_where_it_is_changes_nothing(registry: Registry) -> None:
    registry.move("m", "1.0.0", "staging")
    assert registry.move("m", "1.0.0", "staging") == ()
    assert registry.references("m").revision == 1


RULES = {
    "roles": {"release": ["bob", "ci-*"], "owner": ["carol"], "setters": ["setter"]},
    "administer": "setters",
    "protected_aliases": "owner",
    "lifecycle": {
        "stages": [
            {"name": "new"},
            {"name": "live", "keep": True},
            {"name": "gone", "final": True},
        ],
        "moves": [
            {"from": "new", "to": "live", "role": "release"},
            {"from": "live", "to": "gone"},
        ],
    },
}


def use_rules(registry: Registry, folder: Path, rules: object = RULES) -> None:
    path = folder / "rules.json"
    path.write_text(json.dumps(rules))
    Registry(registry.repository, actor="setter").set_rules(rules_from_file(path))


def test_only_who_has_the_role_may_move(registry: Registry, tmp_path: Path) -> None:
    use_rules(registry, tmp_path)
    with pytest.raises(NotAllowedError, match="'release'; alice has not") as caught:
        registry.move("m", "1.0.0", "live")
    assert "bob, ci-*" in caught.value.hint
    Registry(registry.repository, actor="ci-7").move("m", "1.0.0", "live")
    registry.move("m", "1.0.0", "gone")
    with pytest.raises(InvalidInputError) as refused:
        registry.move("m", "1.0.0", "live")
    assert refused.value.hint == "gone is final."


def test_rules_that_lack_a_stage_with_versions_are_refused(registry: Registry, tmp_path: Path) -> None:
    registry.move("m", "1.0.0", "staging")
    with pytest.raises(ConflictError, match=r"m@1\.0\.0 is in stage staging"):
        use_rules(registry, tmp_path)
    assert read_rules(registry.repository.store) == Rules()


def test_from_a_stage_that_is_no_more_the_way_leads_to_the_beginning() -> None:
    lifecycle = Lifecycle((Stage("a"), Stage("b", final=True)), (Move("a", "b"),))
    assert [move.target for move in lifecycle.moves_from("old")] == ["a"]


@pytest.mark.parametrize(
    ("stages", "moves", "message"),
    [
        ([], [], "at least one stage"),
        ([{"name": "a"}, {"name": "a"}], [], "no two of one name"),
        ([{"name": "a"}], [], "no move leaves a"),
        ([{"name": "a", "keep": True, "final": True}], [], "none would ever be collected"),
        ([{"name": "a"}, {"name": "b", "final": True}], [], "no move leaves a"),
        ([{"name": "a", "final": True}, {"name": "b", "final": True}], [], "no moves lead from a to b"),
        ([{"name": "a"}, {"name": "b"}], [("a", "b")], "no move leaves b"),
        ([{"name": "a", "final": True}, {"name": "b"}], [("a", "b"), ("b", "a")], "final"),
        ([{"name": "a"}], [("a", "a")], "to itself"),
        ([{"name": "a"}], [("a", "x")], "no stage 'x'"),
        ([{"name": "a"}, {"name": "b"}], [("a", "b"), ("a", "b")], "twice"),
        (
            [{"name": "a"}, {"name": "b", "final": True, "replaces_to": "a"}],
            [("a", "b")],
            "no move leads there",
        ),
        ([{"name": "a", "stay": 1}], [], "no 'stay'"),
        ([{"name": 7}], [], "not a stage"),
        ("a", [], "not a list"),
    ],
)
def test_lifecycles_that_make_no_sense_are_refused(stages: object, moves: object, message: str) -> None:
    if isinstance(moves, list):
        moves = [{"from": source, "to": target} for source, target in moves]
    with pytest.raises(InvalidInputError, match=message):
        read_lifecycle({"stages": stages, "moves": moves}, {})


# --- aliases ------------------------------------------------------------------------------------------------


def test_an_alias_stands_wherever_a_version_does(registry: Registry, tmp_path: Path) -> None:
    registry.set_alias("m", "champion", "1.1.0")
    repository = registry.repository
    assert repository.manifest("m", "champion").version == "1.1.0"
    assert repository.pull("m", "champion", tmp_path / "out").version == "1.1.0"
    registry.set_alias("m", "challenger", "champion")
    assert registry.resolve("m", "challenger") == "1.1.0"
    assert repository.diff("m", "1.0.0", "champion") is not None
    assert repository.diff("m", "champion", "m@latest") is not None
    assert registry.resolve("m", "latest") == registry.resolve("m") == "2.0.0"
    registry.set_alias("m", "champion", "2.0.0", expected="1.1.0")
    with pytest.raises(ConflictError, match=r"means 2\.0\.0, not 1\.1\.0"):
        registry.set_alias("m", "champion", "1.0.0", expected="1.1.0")
    registry.delete_alias("m", "champion")
    with pytest.raises(VersionNotFoundError, match="no alias 'champion'") as caught:
        repository.manifest("m", "champion")
    assert "challenger" in caught.value.hint


def test_a_protected_alias_moves_only_when_asked_and_by_whom_it_may(
    registry: Registry, tmp_path: Path
) -> None:
    use_rules(registry, tmp_path)
    carol = Registry(registry.repository, actor="carol")
    registry.set_alias("m", "live", "1.0.0")
    with pytest.raises(NotAllowedError, match="'owner'; alice has not"):
        registry.set_alias("m", "live", "1.0.0", protect=True)
    carol.set_alias("m", "live", "1.0.0", protect=True)
    for attempt in (
        lambda who: who.set_alias("m", "live", "2.0.0"),
        lambda who: who.delete_alias("m", "live"),
        lambda who: who.set_alias("m", "live", "1.0.0", protect=False),
    ):
        with pytest.raises(NotAllowedError, match="is protected"):
            attempt(carol)
    with pytest.raises(NotAllowedError, match="alice has not"):
        registry.set_alias("m", "live", "2.0.0", move_protected=True)
    carol.set_alias("m", "live", "2.0.0", move_protected=True)
    assert registry.references("m").aliases["live"].protected
    carol.delete_alias("m", "live", move_protected=True)


@pytest.mark.parametrize(
    "name", ["", "1.0.0", "v 1", "Champion", "latest", "auto", "none", "a" * 65, "stage:x", "ä"]
)
def test_aliases_that_could_be_something_else_are_refused(registry: Registry, name: str) -> None:
    with pytest.raises(InvalidInputError):
        registry.set_alias("m", name, "1.0.0")


# --- tags and pins ------------------------------------------------------------------------------------------


def test_tags_of_versions_and_models_come_and_go(registry: Registry) -> None:
    registry.tag("m", None, {"team": "nlp"})
    registry.tag("m", "1.0.0", {"eval/mmlu": "0.71", "lang": "de"})
    registry.tag("m", "1.0.0", {"eval/mmlu": "0.72"}, remove=["lang", "absent"])
    references = registry.references("m")
    assert references.tags == {"team": "nlp"}
    assert references.state_of("1.0.0").tags == {"eval/mmlu": "0.72"}
    assert [change.action for change in references.history] == ["tag.set"] * 4 + ["tag.delete"]
    for wrong in ({"": "x"}, {"a b": "x"}, {"a": "x\ny"}, {"a": "x" * 501}):
        with pytest.raises(InvalidInputError):
            registry.tag("m", "1.0.0", wrong)
    with pytest.raises(InvalidInputError, match="at most 64"):
        registry.tag("m", None, {f"k{number}": "" for number in range(64)})


def test_a_pin_keeps_a_version_until_it_is_taken_off(registry: Registry) -> None:
    registry.pin("m", "1.0.0", "a paper cites it")
    registry.pin("m", "1.1.0")
    kept = registry.references("m").kept_versions()
    assert kept == {"1.0.0": ["pinned: a paper cites it"], "1.1.0": ["pinned"]}
    registry.unpin("m", "1.0.0")
    assert registry.unpin("m", "1.0.0") == ()
    assert "1.0.0" not in registry.references("m").kept_versions()


# --- removal ------------------------------------------------------------------------------------------------


def test_a_version_that_is_referred_to_cannot_be_retired(registry: Registry) -> None:
    registry.set_alias("m", "champion", "1.0.0")
    with pytest.raises(ConflictError, match=r"m@1\.0\.0 must stay: alias champion"):
        registry.retire("m", ["1.0.0", "1.1.0"])
    assert not registry.references("m").retiring


def test_nothing_can_refer_to_a_version_that_is_retired(registry: Registry) -> None:
    registry.tag("m", "1.1.0", {"a": "b"})
    registry.retire("m", ["1.1.0"])
    for attempt in (
        lambda: registry.set_alias("m", "champion", "1.1.0"),
        lambda: registry.move("m", "1.1.0", "staging"),
        lambda: registry.tag("m", "1.1.0", {"a": "c"}),
        lambda: registry.pin("m", "1.1.0"),
        lambda: registry.deploy("m", "1.1.0", "eu"),
    ):
        with pytest.raises(VersionNotFoundError, match="being removed"):
            attempt()
    registry.repository.store.delete("models/m/versions/1.1.0.json")
    registry.finish_removal("m", ["1.1.0"])
    references = registry.references("m")
    assert not references.retiring
    assert not references.versions


def test_whoever_refers_while_a_version_is_removed_either_keeps_it_or_is_refused(registry: Registry) -> None:
    """Removal and reference race: never does a reference name a version that is gone."""
    manifest = registry.repository.store.get("models/m/versions/1.1.0.json")
    for _ in range(12):
        outcome = race(registry, "1.1.0", manifest, threading.Barrier(2))
        assert outcome in (["kept", "referred"], ["refused", "removed"])


def race(registry: Registry, version: str, manifest: bytes, both: threading.Barrier) -> list[str]:
    key = f"models/m/versions/{version}.json"
    store = registry.repository.store

    def remove() -> str:
        both.wait(60)
        try:
            registry.retire("m", [version])
        except ConflictError:
            return "kept"
        store.delete(key)
        registry.finish_removal("m", [version])
        return "removed"

    def refer() -> str:
        both.wait(60)
        try:
            registry.set_alias("m", "champion", version)
        except VersionNotFoundError:
            return "refused"
        return "referred"

    with ThreadPoolExecutor(2) as pool:
        outcome = sorted(done.result() for done in [pool.submit(remove), pool.submit(refer)])
    if "removed" in outcome:
        store.create(key, manifest)
    else:
        registry.delete_alias("m", "champion")
    return outcome


# --- into memory --------------------------------------------------------------------------------------------


def test_weights_are_loaded_and_swapped_by_their_aliases(registry: Registry, tmp_path: Path) -> None:
    repository = registry.repository
    repository.push(write_model(tmp_path / "old.safetensors", 1), "w", "1.0.0")
    repository.push(write_model(tmp_path / "new.safetensors", 2), "w", "2.0.0")
    registry.set_alias("w", "champion", "1.0.0")
    registry.move("w", "2.0.0", "staging")
    weights = textnlp_fast.load("w@champion", repository=repository, framework="numpy")
    assert np.array_equal(
        weights["w"], textnlp_fast.load("w", "1.0.0", repository=repository, framework="numpy")["w"]
    )
    swapped = textnlp_fast.swap(weights, "models:/w/Staging", repository=repository, from_version="champion")
    assert swapped.target_version == "2.0.0"
    wanted = textnlp_fast.load("w", "stage:staging", repository=repository, framework="numpy")
    assert np.array_equal(weights["w"], wanted["w"])
