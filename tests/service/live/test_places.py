"""Which files jobs may touch: nothing outside the roots, whatever the path, its links and its dots say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.errors import InvalidInputError, NotAllowedError, TextnlpFastError
from textnlp_fast.objectstore import open_store
from textnlp_fast.service.jobs import Roots


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    (tmp_path / "root" / "inner").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.safetensors").write_bytes(b"x")
    (tmp_path / "root-not").mkdir()
    (tmp_path / "root" / "repository").mkdir()
    return Roots([tmp_path / "root"], open_store(tmp_path / "root" / "repository"))


def test_inside(roots: Roots, tmp_path: Path) -> None:
    assert roots.source(f"{tmp_path}/root/inner") == tmp_path / "root" / "inner"
    assert roots.folder_to_make(f"{tmp_path}/root/new/deep") == tmp_path / "root" / "new" / "deep"
    assert roots.file_to_make(f"{tmp_path}/root/inner/x.tnpatch") == tmp_path / "root/inner/x.tnpatch"


def test_escapes(roots: Roots, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root / "loop")
    (root / "chain").symlink_to(root / "link")
    (root / "file.safetensors").symlink_to(tmp_path / "outside" / "secret.safetensors")
    for path in (
        tmp_path / "outside",
        root / ".." / "outside",
        f"{root}/inner/../../outside",
        root / "link",
        root / "chain",
        root / "link" / "new",
        root / "file.safetensors",
        tmp_path / "root-not",
        "/",
        "/etc/passwd",
        "/proc/self/root" + str(tmp_path / "outside"),
        "//etc",
    ):
        for look in (roots.source, roots.folder_to_make, roots.file_to_make):
            with pytest.raises(NotAllowedError):
                look(str(path))


def test_the_answer_tells_nothing_of_other_places(roots: Roots, tmp_path: Path) -> None:
    said = []
    for path in (tmp_path / "outside", tmp_path / "0utside"):
        with pytest.raises(NotAllowedError) as told:
            roots.source(str(path))
        said.append(str(told.value).replace("0", "o"))
    assert said[0].replace("0", "o") == said[1]


def test_no_paths(roots: Roots) -> None:
    for path in ("", "relative", "~", "~root", "s3://bucket/x", "file:///etc", "/a\0b", "\\etc", "/\ud800"):
        with pytest.raises(InvalidInputError):
            roots.source(path)


def test_roots_themselves_and_other_things(roots: Roots, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        Roots([tmp_path / "root"], open_store(tmp_path / "elsewhere")).folder_to_make(str(tmp_path / "root"))
    os.mkfifo(tmp_path / "root" / "pipe")
    for look in (roots.source, roots.folder_to_make, roots.file_to_make):
        with pytest.raises(InvalidInputError):
            look(str(tmp_path / "root" / "pipe"))
    with pytest.raises(InvalidInputError):
        roots.file_to_make(str(tmp_path / "root" / "none" / "x"))


def test_the_repository_is_no_place_for_jobs(roots: Roots, tmp_path: Path) -> None:
    for path in (tmp_path / "root" / "repository", tmp_path / "root" / "repository" / "objects" / "x"):
        for look in (roots.source, roots.folder_to_make):
            with pytest.raises(NotAllowedError):
                look(str(path))


def test_none_allowed(tmp_path: Path) -> None:
    with pytest.raises(NotAllowedError):
        Roots([], open_store(tmp_path)).source(str(tmp_path))
    with pytest.raises(InvalidInputError):
        Roots([tmp_path / "none"], open_store(tmp_path))


@given(
    st.lists(
        st.sampled_from(["..", ".", "inner", "link", "a", "", "repository", "🙂", "x" * 300]), max_size=8
    )
)
def test_any_way(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    """Whatever is accepted lies below the root by the operating system's own word."""
    base = tmp_path_factory.mktemp("any")
    (base / "root" / "inner").mkdir(parents=True)
    (base / "outside").mkdir()
    (base / "root" / "link").symlink_to(base / "outside")
    roots = Roots([base / "root"], open_store(base / "elsewhere"))
    path = f"{base}/root/" + "/".join(parts)
    try:
        found = roots.folder_to_make(path)
    except TextnlpFastError:
        return
    assert (base / "root") in found.parents
    found.mkdir(parents=True, exist_ok=True)
    assert os.path.realpath(found).startswith(f"{base}/root/")
