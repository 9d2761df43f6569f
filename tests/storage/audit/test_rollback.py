"""An old `refs.json` that was put back: the log knows how far its model had come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.storage import Registry, Repository
from textnlp_fast.storage.audit import AuditPolicy, AuditReport, log_of, record, verify_log

ON = AuditPolicy(actor="tests")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    found = Repository.open(tmp_path / "r", create=True)
    for version in ("1.0.0", "1.1.0"):
        found.store.put_object(f"models/org/m/versions/{version}.json", b"{}")
    return found


def registry_of(repository: Repository, mode: str) -> Registry:
    """A registry that records as the setting `audit` of this moment says."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TEXTNLP_FAST_AUDIT", mode)
        return Registry(repository, actor="tests")


def verified(repository: Repository) -> AuditReport:
    report = verify_log(repository.store, log_of(repository.store, ON))
    # These versions were made past this package, which is told, too.
    report.problems = [problem for problem in report.problems if problem.kind != "unrecorded"]
    return report


def refs(repository: Repository) -> Path:
    return Path(repository.url.removeprefix("file://")) / "models/org/m/refs.json"


def test_references_that_were_put_back_are_older_than_the_log(repository: Repository) -> None:
    registry = registry_of(repository, "on")
    registry.set_alias("org/m", "champion", "1.0.0")
    old = refs(repository).read_bytes()
    registry.set_alias("org/m", "champion", "1.1.0")
    registry.tag("org/m", "1.1.0", {"checked": "yes"})
    assert verified(repository).problems == []
    refs(repository).write_bytes(old)
    (problem,) = verified(repository).problems
    assert problem.kind == "rolled_back"
    assert "org/m are at revision 1, and had been at 2" in problem.detail
    assert problem.sequence is not None


def test_references_that_were_taken_away_are_told_too(repository: Repository) -> None:
    registry = registry_of(repository, "on")
    registry.set_alias("org/m", "champion", "1.0.0")
    registry.set_alias("org/m", "champion", "1.1.0")
    refs(repository).unlink()
    assert [problem.kind for problem in verified(repository).problems] == ["rolled_back"]


@pytest.mark.parametrize(("mode", "shows"), [("on", False), ("full", True)])
def test_the_last_change_undone_shows_where_outcomes_are_recorded(
    repository: Repository, mode: str, shows: bool
) -> None:
    """Else nobody can tell it from a change whose writer was killed before it was made."""
    registry = registry_of(repository, mode)
    registry.set_alias("org/m", "champion", "1.0.0")
    old = refs(repository).read_bytes()
    registry.set_alias("org/m", "champion", "1.1.0")
    refs(repository).write_bytes(old)
    assert [problem.kind for problem in verified(repository).problems] == ["rolled_back"] * shows


def test_other_changes_on_top_of_an_old_state_do_not_hide_it(repository: Repository) -> None:
    registry = registry_of(repository, "on")
    registry.set_alias("org/m", "champion", "1.0.0")
    old = refs(repository).read_bytes()
    for turn in range(3):
        registry.tag("org/m", "1.1.0", {"turn": str(turn)})
    refs(repository).write_bytes(old)
    elsewhere = registry_of(repository, "off")  # a tool that records nothing
    for turn in range(5):
        elsewhere.tag("org/m", "1.0.0", {"turn": str(turn)})
    (problem,) = verified(repository).problems
    assert problem.kind == "rolled_back"
    assert "is another than the one that was recorded" in problem.detail


def test_a_change_is_found_again_in_old_blocks(repository: Repository) -> None:
    registry = registry_of(repository, "on")
    registry.tag("org/m", "1.0.0", {"turn": "first"})
    old = refs(repository).read_bytes()
    registry.tag("org/m", "1.0.0", {"turn": "second"})
    registry.tag("org/m", "1.0.0", {"turn": "third"})
    silent = registry_of(repository, "off")
    for turn in range(300):
        silent.tag("org/m", "1.0.0", {"turn": str(turn)})
    assert verified(repository).problems == []
    refs(repository).write_bytes(old)
    for turn in range(300):
        silent.tag("org/m", "1.0.0", {"turn": str(turn)})
    assert [problem.kind for problem in verified(repository).problems] == ["rolled_back"]


@pytest.mark.parametrize(
    "seen", [None, 7, [], {}, {"revision": True, "id": "x"}, {"revision": -1, "id": "x"}, {"revision": 3}]
)
def test_what_others_write_in_that_place_is_no_revision(repository: Repository, seen: Any) -> None:
    registry_of(repository, "on").set_alias("org/m", "champion", "1.0.0")
    record(repository.store, action="other", model="org/m", detail={"refs": seen}, policy=ON)
    assert verified(repository).problems == []


def test_unreadable_references_are_a_problem_of_their_own(repository: Repository) -> None:
    registry = registry_of(repository, "on")
    registry.set_alias("org/m", "champion", "1.0.0")
    registry.set_alias("org/m", "champion", "1.1.0")
    refs(repository).write_bytes(b"{}")
    assert [problem.kind for problem in verified(repository).problems] == ["unreadable"]
