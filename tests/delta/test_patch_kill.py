"""kill -9 at random moments of creating and applying, and at every step of an update in place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from delta.models import Model, Tensor, files_of, nudged, tree, write
from textnlp_fast.delta import apply_patch, create_patch
from textnlp_fast.errors import ConflictError, OutOfSpaceError, WrongBaseError


@pytest.mark.slow
def test_killed_patches(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_patches.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "60", "20260"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    lines = done.stdout.splitlines()
    assert sum(line.startswith("kill ") for line in lines) == 60
    left = [int(line.split()[-1]) for line in lines if line.startswith("left behind")]
    assert len(left) == 60
    assert any(left), "no kill came in the middle of anything: the test proves nothing"


class Killed(BaseException):
    """Stands for the end of the process: nothing that follows in it may matter."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    names = "abcd"
    tensors = {name: Tensor("U8", (5000,), bytes([number]) * 5000) for number, name in enumerate(names)}
    old: Model = {f"{name}.safetensors": {name: tensor} for name, tensor in tensors.items()}
    new: Model = {f"{name}.safetensors": {name: nudged(tensors[name], 1)} for name in names[1:]}
    new["e.safetensors"] = {"e": tensors["a"]}
    write(old, tmp_path / "live")
    write(new, tmp_path / "new")
    create_patch(tmp_path / "live", tmp_path / "new", tmp_path / "p", window_bytes=1 << 12)
    assert files_of(new) == tree(tmp_path / "new")
    return tmp_path


@pytest.mark.parametrize("step", range(12))
def test_an_update_in_place_killed_at_each_step(
    place: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Every rename and removal counts as a step; whatever was done, running it again ends it."""
    live, before = place / "live", tree(place / "live")
    renames, steps = os.replace, iter(range(100))

    def replace(source: Any, target: Any, **folder: int) -> None:
        if next(steps) == step:
            os.kill(os.getpid(), 9)
        renames(source, target, **folder)

    child = os.fork()
    if not child:
        monkeypatch.setattr(os, "replace", replace)
        try:
            apply_patch(place / "p", live, live, threads=1)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    # The commit is the first rename, then come four files.
    assert killed == (step < 5)
    if step == 0:
        assert {name: data for name, data in tree(live).items() if "/" not in name} == before
    report = apply_patch(place / "p", live, live)
    assert report.finished_earlier_run == (step > 0)
    assert tree(live) == tree(place / "new")


def test_an_error_amid_the_renames_is_mended_by_the_next_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = place / "live"
    renames = os.replace

    def replace(source: Any, target: Any, **folder: int) -> None:
        if Path(target).name == "c.safetensors":
            raise OSError(28, "No space left on device")
        renames(source, target, **folder)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace)
        with pytest.raises(OutOfSpaceError):
            apply_patch(place / "p", live, live)
    assert apply_patch(place / "p", live, live).finished_earlier_run
    assert tree(live) == tree(place / "new")


def test_an_interrupted_update_is_finished_before_another_begins(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next patch would find a mixture, and refuse it for ever."""
    live = place / "live"
    write({"z.safetensors": {"z": Tensor("U8", (3,), b"abc")}}, place / "third")
    create_patch(place / "new", place / "third", place / "q")
    renames, seen = os.replace, iter(range(100))

    def replace(source: Any, target: Any, **folder: int) -> None:
        if next(seen) == 3:
            raise Killed
        renames(source, target, **folder)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace)
        with pytest.raises(Killed):
            apply_patch(place / "p", live, live)
    assert tree(live) != tree(place / "new")
    report = apply_patch(place / "q", live, live)
    assert not report.finished_earlier_run
    assert tree(live) == tree(place / "third")


def test_a_full_disk_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(place)

    def full(descriptor: int, data: object, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutOfSpaceError):
        create_patch(place / "live", place / "new", place / "q")
    for dest in (place / "live", place / "out"):
        with pytest.raises(OutOfSpaceError):
            apply_patch(place / "p", place / "live", dest)
    assert tree(place) == before
    assert not (place / "out").exists()


def test_two_at_once_do_not_meet(place: Path) -> None:
    def create_again(progress: object) -> None:
        if getattr(progress, "stage", "") == "create":
            with pytest.raises(ConflictError, match="another command"):
                create_patch(place / "live", place / "new", place / "q")

    def apply_again(progress: object) -> None:
        if getattr(progress, "stage", "") == "apply":
            with pytest.raises(ConflictError, match="another command"):
                apply_patch(place / "p", place / "live", place / "live")

    create_patch(place / "live", place / "new", place / "q", progress=create_again)
    apply_patch(place / "p", place / "live", place / "live", progress=apply_again)
    assert tree(place / "live") == tree(place / "new")
    with pytest.raises(WrongBaseError):
        apply_patch(place / "p", place / "live", place / "out")
