"""Versions as directories: made once, found again, by their deltas, by several processes at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from delta.models import files_of, tree, weights, write
from integrations.libraries.conftest import Shelf
from textnlp_fast.errors import CorruptDataError, LoadTimeoutError, VersionNotFoundError
from textnlp_fast.integrations.local_versions import local_version
from textnlp_fast.storage import Repository
from textnlp_fast.storage.pull_record import RECORD_NAME
from textnlp_fast.storage.registry.registry import Registry


def contents(folder: Path) -> dict[str, bytes]:
    return {path: data for path, data in tree(folder).items() if path != RECORD_NAME}


@pytest.fixture
def pulls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Reports of the pulls that were made."""
    reports: list[Any] = []
    pull = Repository.pull

    def noted(self: Repository, *args: Any, **options: Any) -> Any:
        reports.append(pull(self, *args, **options))
        return reports[-1]

    monkeypatch.setattr(Repository, "pull", noted)
    return reports


def test_a_version_is_pulled_once(shelf: Shelf, pulls: list[Any], tmp_path: Path) -> None:
    folder = local_version("textnlp://org/tiny@1.0.0", repository=shelf.path)
    assert contents(folder) == files_of(shelf.models["1.0.0"])
    assert folder.is_relative_to(tmp_path / "versions")
    assert local_version("textnlp://org/tiny@champion", repository=shelf.path) == folder
    assert (
        local_version("textnlp://org/tiny@1.0.0/config.json", repository=shelf.path) == folder / "config.json"
    )
    assert len(pulls) == 1
    # The next version is made of this one and its deltas.
    newer = local_version("textnlp://org/tiny", repository=shelf.path)
    assert contents(newer) == files_of(shelf.models["1.1.0"])
    assert pulls[1].fetched_bytes < pulls[0].fetched_bytes / 2


def test_an_alias_that_moves_leads_elsewhere(shelf: Shelf, tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repo", create=True)
    for version, source in shelf.sources.items():
        repository.push(source, "m", version)
    registry = Registry(repository)
    found = []
    for version in shelf.sources:
        registry.set_alias("m", "live", version)
        found.append(local_version("textnlp://m@live", repository=repository))
        assert contents(found[-1]) == files_of(shelf.models[version])
    assert found[0] != found[1]


def test_damage_is_mended(shelf: Shelf, pulls: list[Any]) -> None:
    folder = local_version("textnlp://org/tiny@1.0.0", repository=shelf.path)
    place = folder / "model-00001.safetensors"
    status = place.stat()
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    # Another size or time is seen by itself; the same ones are with check=True.
    place.write_bytes(data)
    local_version("textnlp://org/tiny@1.0.0", repository=shelf.path)
    assert contents(folder) == files_of(shelf.models["1.0.0"])
    assert len(pulls) == 2
    (folder / "config.json").unlink()
    local_version("textnlp://org/tiny@1.0.0", repository=shelf.path)
    assert contents(folder) == files_of(shelf.models["1.0.0"])
    import os  # noqa: PLC0415

    recorded = place.stat()
    place.write_bytes(data)
    os.utime(place, ns=(recorded.st_atime_ns, recorded.st_mtime_ns))
    assert status.st_size == place.stat().st_size
    local_version("textnlp://org/tiny@1.0.0", repository=shelf.path, check=True)
    assert contents(folder) == files_of(shelf.models["1.0.0"])


def test_names_do_not_meet(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repo", create=True)
    names = ["org", "org/1.0.0", "org/m", "org/m/1.0.0"]
    for number, name in enumerate(names):
        repository.push(
            write({"m.safetensors": {"w": weights(number)}}, tmp_path / str(number)), name, "1.0.0"
        )
    for number, name in enumerate(names):
        folder = local_version(f"textnlp://{name}@1.0.0", repository=repository)
        assert contents(folder) == files_of({"m.safetensors": {"w": weights(number)}})


def test_two_repositories_do_not_meet(tmp_path: Path) -> None:
    for number in range(2):
        model = write({"m.safetensors": {"w": weights(number)}}, tmp_path / f"m{number}")
        repository = Repository.open(tmp_path / f"repo{number}", create=True)
        repository.push(model, "m", "1.0.0")
        folder = local_version("textnlp://m", repository=repository, cache_dir=tmp_path / "shared")
        assert contents(folder) == files_of({"m.safetensors": {"w": weights(number)}})


def test_nothing_is_left_where_it_fails(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(VersionNotFoundError):
        local_version("textnlp://org/tiny@9.0.0", repository=shelf.path)
    repository = Repository.open(tmp_path / "repo", create=True)
    repository.push(shelf.sources["1.0.0"], "m", "1.0.0")
    for path in (tmp_path / "repo" / "objects").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(bytes(len(path.read_bytes())))
    with pytest.raises(CorruptDataError):
        local_version("textnlp://m", repository=tmp_path / "repo", cache_dir=tmp_path / "kept")
    assert not contents(tmp_path / "kept")


def test_processes_share_one_pull(shelf: Shelf, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom textnlp_fast.integrations.local_versions import local_version\n"
        "print(local_version('textnlp://org/tiny@1.1.0', repository=sys.argv[1], cache_dir=sys.argv[2]))"
    )
    arguments = [sys.executable, "-c", code, shelf.path, str(tmp_path / "shared")]
    children = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = {child.communicate(timeout=300)[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    (folder,) = told
    assert contents(Path(folder)) == files_of(shelf.models["1.1.0"])


def test_who_waits_too_long_says_so(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    from textnlp_fast.contents.staging import staging_folder  # noqa: PLC0415

    folder = local_version("textnlp://org/tiny@1.0.0", repository=shelf.path)
    (folder / "config.json").unlink()
    with staging_folder(folder), pytest.raises(LoadTimeoutError):
        local_version("textnlp://org/tiny@1.0.0", repository=shelf.path, timeout_s=0.3)
