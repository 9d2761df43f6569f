"""What newcomers get wrong, and what they are told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.errors import NoPlanError

Run = Any


@pytest.mark.parametrize("place", ["s3:bucket", "s3:/bucket/models", "gs:bucket"])
def test_a_url_without_its_slashes_makes_no_folder(
    place: str, tmp_path: Path, models: tuple[Path, Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    for words in (["push", models[0], "m@1.0.0"], ["ls"], ["pull", "m", "out"]):
        done = run(*words, "--repo", place)
        assert done.code == 2
        assert "neither a URL nor a plain path" in done.err
        assert f"{place.split(':', maxsplit=1)[0]}://bucket" in done.err
        assert f"./{place}" in done.err
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_may_have_a_colon_in_its_name(
    tmp_path: Path, models: tuple[Path, Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("push", models[0], "m@1.0.0", "--repo", "./s3:bucket").code == 0
    assert (tmp_path / "s3:bucket" / "repository.json").exists()


def test_a_parent_that_is_not_there_names_the_way_out(
    tmp_path: Path, place: Path, models: tuple[Path, Path], run: Run
) -> None:
    for parent, repository in (("0.9.0", place), ("other@1.0.0", place), ("0.9.0", tmp_path / "new")):
        done = run("push", models[1], "m@2.0.0", "--repo", repository, "--parent", parent)
        assert done.code == 3, done.err
        assert "--parent none" in done.err
    assert run("push", models[1], "m@2.0.0", "--repo", place, "--parent", "none").code == 0
    assert "--parent none" not in run("pull", "m@9.0.0", tmp_path / "out", "--repo", place).err


@pytest.mark.parametrize("inside", ["", "out", "objects/out"])
def test_a_pull_into_the_repository_is_refused(
    inside: str, tmp_path: Path, place: Path, models: tuple[Path, Path], run: Run
) -> None:
    before = sorted(place.rglob("*"))
    (tmp_path / "link").symlink_to(place)
    for root in (place, tmp_path / "link"):
        done = run("pull", "m", root / inside, "--repo", place)
        assert done.code == 2
        assert "within the repository" in done.err
        assert "hint:" in done.err
    assert sorted(place.rglob("*")) == before
    beside = run("pull", "m", place.parent / f"{place.name}-out", "--repo", place)
    assert beside.code == 0


def test_a_pull_around_the_repository_is_allowed_unless_a_file_would_land_in_it(
    tmp_path: Path, models: tuple[Path, Path], run: Run
) -> None:
    (tmp_path / "deep" / "store").mkdir(parents=True)
    (tmp_path / "deep" / "store" / "note.txt").write_text("x")
    (tmp_path / "deep" / "model.safetensors").write_bytes((models[0] / "model.safetensors").read_bytes())
    around = tmp_path / "around"
    assert run("push", tmp_path / "deep", "m@1.0.0", "--repo", around / "other").code == 0
    assert run("pull", "m", around, "--repo", around / "other").code == 0
    (tmp_path / "second").mkdir()
    assert run("push", tmp_path / "deep", "m@1.0.0", "--repo", tmp_path / "second" / "store").code == 0
    refused = run("pull", "m", tmp_path / "second", "--repo", tmp_path / "second" / "store")
    assert refused.code == 2
    assert "within the repository" in refused.err
    assert not (tmp_path / "second" / "model.safetensors").exists()


def test_a_repeated_note_is_refused(tmp_path: Path, models: tuple[Path, Path], run: Run) -> None:
    done = run("push", models[0], "m@1.0.0", "--repo", tmp_path / "r", "--meta", "a=1", "--meta", "a=2")
    assert done.code == 2
    assert "'a' twice: '1' and '2'" in done.err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("words", [["ls"], ["log", "m", "--json"], ["show", "m"]])
def test_an_instruction_set_that_is_not_there_is_warned_of_once(words: list[str], place: Path) -> None:
    def call(isa: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "textnlp_fast.cli", *words, "--repo", str(place)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "TEXTNLP_FAST_ISA": isa},
        )

    bad, good = call("avx1024"), call("portable")
    assert bad.returncode == good.returncode == 0
    assert bad.stderr.count("TEXTNLP_FAST_ISA") == 1
    assert bad.stderr.startswith("warning:")
    assert len(bad.stderr.splitlines()) == 1
    assert good.stderr == ""
    assert bad.stdout == good.stdout


def test_a_read_that_fails_says_nothing_of_publishing(
    tmp_path: Path, place: Path, models: tuple[Path, Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textnlp_fast.errors import StorageUnavailableError  # noqa: PLC0415
    from textnlp_fast.objectstore.local import LocalBackend  # noqa: PLC0415

    def down(*_: object, **__: object) -> None:
        raise StorageUnavailableError("the store did not answer")

    with monkeypatch.context() as patched:
        patched.setattr(LocalBackend, "get_ranges", down)
        read = run("pull", "m", tmp_path / "out", "--repo", place)
        assert read.code == 8
        assert "ublish" not in read.err
        assert "run the command again" in read.err
    with monkeypatch.context() as patched:
        patched.setattr(LocalBackend, "put_if_absent", down)
        lost = run("push", models[0], "m@1.2.0", "--repo", place)
        assert lost.code == 8
        assert (
            "Nothing was published" in lost.err
        )  # the audit log's record was not written: no manifest was sent
    with monkeypatch.context() as patched:
        put = LocalBackend.put_if_absent

        def down_at_last(self: LocalBackend, key: str, data: bytes) -> object:
            return down() if key.startswith("models/") else put(self, key, data)

        patched.setattr(LocalBackend, "put_if_absent", down_at_last)
        lost = run("push", models[0], "m@1.2.0", "--repo", place)
        assert lost.code == 8
        assert "may be published or not" in lost.err
    with monkeypatch.context() as patched:
        patched.setattr(LocalBackend, "get", down)
        early = run("push", models[0], "m@1.2.0", "--repo", place)
        assert early.code == 8
        assert "Nothing was published" in early.err
    assert run("push", models[0], "m@1.2.0", "--repo", place).code == 0


def test_reasons_in_foreign_words_make_no_lines_of_their_own(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        error = NoPlanError("nothing fits\n  evil: as below", hint="")
        error.rejected = (("evil\nerror: all is lost", "\x1b[31mred\nhint:  pipe this into sh"),)
        raise error

    monkeypatch.setattr("textnlp_fast.gpu.catalog.Catalog.load", refuse)
    told = run("gpu", "catalog", "show")
    assert told.code == 13
    assert told.err.splitlines() == [
        "Not these:",
        r"  evil\nerror: all is lost: \x1b[31mred\nhint:  pipe this into sh",
        "error: nothing fits",
    ]
