"""`textnlp-fast gc` as people use it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.conftest import Makers
from textnlp_fast.storage import Registry, Repository
from textnlp_fast.storage.audit import verify_audit

Run = Callable[..., Any]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A repository with four versions, the oldest of which has an alias."""
    repository = Repository.open(tmp_path / "repository", create=True, window_bytes=1 << 12)
    tensors = Makers.tensors(rows=8, layers=1)
    for number in range(4):
        source = Makers.write(tmp_path / f"in{number}" / "m.safetensors", tensors)
        repository.push(source.parent, "m", f"1.{number}.0")
        tensors = Makers.nudge(tensors, number, 0.3)
    Registry(repository).set_alias("m", "champion", "1.0.0")
    return tmp_path / "repository"


def gc(run: Run, place: Path, *arguments: str) -> str:
    result: Any = run("gc", "--repo", str(place), *arguments)
    assert result.code == 0, result.err
    out: str = result.out
    return out


def test_it_tells_first_and_deletes_then(run: Run, place: Path) -> None:
    told = gc(run, place, "--keep-last", "1", "--all")
    rows = [line.split(maxsplit=2) for line in told.splitlines()[1:5]]
    assert rows == [
        ["m@1.0.0", "stays", "alias champion"],
        ["m@1.1.0", "goes", "no rule keeps it"],
        ["m@1.2.0", "goes", "no rule keeps it; its tensors stay as bases of m@1.3.0"],
        ["m@1.3.0", "stays", "latest; among the last 1"],
    ]
    assert "2 versions would go, 2 stay" in told
    assert "nothing was deleted: --delete does it" in told
    assert Repository.open(place).models() == {"m": ["1.0.0", "1.1.0", "1.2.0", "1.3.0"]}
    done = gc(run, place, "--keep-last", "1", "--delete", "--grace", "0s")
    assert "2 versions went, 2 stay" in done
    assert Repository.open(place).models() == {"m": ["1.0.0", "1.3.0"]}
    assert Repository.open(place).verify().ok
    assert "0 versions went, 2 stay; 0 objects (0 B) deleted" in gc(run, place, "--delete", "--grace", "0s")


def test_objects_wait_for_a_day_unless_told_otherwise(run: Run, place: Path) -> None:
    done = gc(run, place, "--version", "m@1.3.0", "--delete")
    assert "0 objects (0 B) deleted" in done
    assert "wait out their grace: run gc again after" in done
    assert "deleted" in gc(run, place, "--delete", "--grace", "0s")
    assert not Repository.open(place).verify().unreferenced


def test_scripts_get_json(run: Run, place: Path) -> None:
    report = json.loads(gc(run, place, "--older-than", "30d", "--keep-stage", "staging", "--json"))
    assert report["deleted"] is False
    assert {row["version"]: row["reasons"] for row in report["versions"]}["1.1.0"] == ["young"]
    report = json.loads(gc(run, place, "--older-than", "30d", "--model", "m*", "--delete", "--json"))
    assert not any(row["goes"] for row in report["versions"])
    report = json.loads(
        gc(run, place, "--older-than", "0s", "--delete", "--grace", "0s", "--rebase", "--json")
    )
    assert [row["version"] for row in report["versions"] if row["goes"]] == ["1.1.0", "1.2.0"]
    assert report["swept_bytes"] >= 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--version", "m@1.0.0", "--delete"], 2, "alias champion"),
        (["--version", "m@9.0.0"], 3, "no version m@9.0.0"),
        (["--version", "m"], 2, "names no version"),
        (["--older-than", "soon"], 2, "no age"),
        (["--keep-last", "0"], 2, "keep-last"),
        (["--keep-stage", "drafts", "--delete"], 2, "draft, staging, production, archived"),
        (["--keep-stage", "draft", "--keep-stage", "Draft", "--delete"], 2, "'Draft'"),
        (["--keep-last", "1", "--model", "other*", "--delete"], 3, "no model"),
        (["--keep-last", "1", "--model", "M", "--delete"], 3, "There are: m"),
    ],
)
def test_mistakes_are_named(run: Run, place: Path, arguments: list[str], code: int, says: str) -> None:
    result = run("gc", "--repo", str(place), *arguments)
    assert result.code == code
    assert says in result.err
    assert len(Repository.open(place).models()["m"]) == 4


def test_abandoned_uploads_go(run: Run, place: Path) -> None:
    part = place / ".tmp" / "upload-0123456789abcdef.part"
    part.parent.mkdir(exist_ok=True)
    part.write_bytes(b"x" * 5000)
    week_ago = time.time() - 8 * 24 * 3600
    os.utime(part, (week_ago, week_ago))
    told = gc(run, place)
    if part.exists():  # opening a folder removes what is older than a day, too
        assert "1 uploads" in told
    gc(run, place, "--delete")
    assert not part.exists()


def test_the_audit_log_knows_what_went(run: Run, place: Path) -> None:
    gc(run, place, "--keep-last", "1", "--delete", "--grace", "0s", "--rebase")
    report = verify_audit(Repository.open(place).store, deep=True)
    assert report.ok, report.problems
    result = run("audit", "log", "--repo", str(place), "--json")
    assert result.out.count("gc.delete") >= 2


def test_uploads_that_are_too_young_are_counted_and_an_age_says_which(run: Run, place: Path) -> None:
    (place / ".tmp").mkdir(exist_ok=True)
    young, old = place / ".tmp" / "upload-a.part", place / ".tmp" / "upload-b.part"
    young.write_bytes(b"1" * 5000)
    old.write_bytes(b"2" * 5000)
    two_hours_ago = time.time() - 2 * 3600
    os.utime(old, (two_hours_ago, two_hours_ago))
    assert "2 uploads, under way or abandoned, are younger than 7d: left" in gc(run, place, "--delete")
    told = gc(run, place, "--uploads-older-than", "1h")
    assert "1 uploads, under way or abandoned, are younger than 1h: left" in told
    assert "were begun and never finished" in told
    assert old.exists()
    document = json.loads(gc(run, place, "--uploads-older-than", "1h", "--delete", "--json"))
    assert (document["uploads"], document["uploads_younger"]) == (1, 1)
    assert (old.exists(), young.exists()) == (False, True)
    assert run("gc", "--repo", str(place), "--uploads-older-than", "soon").code == 2
    gc(run, place, "--uploads-older-than", "0s", "--delete")
    assert not young.exists()
