"""`textnlp-fast audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def actor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTNLP_FAST_ACTOR", "ada")


def test_the_log_is_shown_and_filtered(run: Any, place: Path) -> None:
    shown = run("audit", "log", "--repo", place)
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0].split() == ["record", "time", "actor", "action", "outcome", "about", "detail"]
    assert [line.split()[3] for line in lines[1:]] == ["audit.begin", "push", "push"]
    assert "m@1.1.0" in lines[3]
    documents = run("audit", "log", "--repo", place, "--json", "--model", "m", "--version", "1.0.0").document
    assert [(one["action"], one["actor"], one["outcome"]) for one in documents] == [
        ("push", {"name": "ada"}, "intended")
    ]
    for filters, count in [
        (["--action", "audit.*"], 1),
        (["--actor", "bob"], 0),
        (["--limit", "1"], 1),
        (["--since", "2000-01-01"], 3),
        (["--since", "2999-01-01"], 0),
        (["--outcome", "failed"], 0),
    ]:
        assert len(run("audit", "log", "--repo", place, "--json", *filters).document) == count, filters


def test_verify_says_what_is_wrong(run: Any, place: Path) -> None:
    good = run("audit", "verify", "--repo", place, "--deep")
    assert good.code == 0
    assert good.out.startswith("3 records, 2 versions: all is well\nhead 2:")
    head = run("audit", "head", "--repo", place).out.strip()
    assert good.out.rstrip().endswith(head)
    (place / "audit/000000000/002.json").unlink()
    cut = run("audit", "verify", "--repo", place, "--anchor", head)
    assert cut.code == 5
    assert "truncated" in cut.out
    assert "unrecorded" in cut.out  # m@1.1.0 lost its record
    document = run("audit", "verify", "--repo", place, "--json").document
    assert document["ok"] is False
    assert [problem["kind"] for problem in document["problems"]] == ["unrecorded"]


def test_verify_goes_on_from_a_head(run: Any, place: Path) -> None:
    head = run("audit", "head", "--repo", place).out.strip()
    done = run("audit", "verify", "--repo", place, "--from", head)
    assert done.code == 0
    assert done.out.startswith("0 records")


def test_a_key_proves_the_log(run: Any, tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "keys"
    key.write_text("ab" * 32)
    monkeypatch.setenv("TEXTNLP_FAST_AUDIT_KEY_FILE", str(key))
    assert run("push", models[0], "m@1.0.0", "--repo", tmp_path / "r").code == 0
    assert "2 proven by a key" in run("audit", "verify", "--repo", tmp_path / "r").out
    key.write_text("cd" * 32)
    assert run("audit", "verify", "--repo", tmp_path / "r").code == 5


def test_mistakes_are_told(run: Any, place: Path, tmp_path: Path) -> None:
    assert run("audit", "verify", "--repo", place, "--anchor", "5").code == 2
    assert run("audit", "log", "--repo", tmp_path / "nothing").code == 3
    for path in (place / "audit").rglob("*.json"):
        path.unlink()
    assert run("audit", "head", "--repo", place).code == 2
