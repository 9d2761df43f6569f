"""The file system, by its own rules and by fsspec's own tests for all file systems, as far as those read."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from delta.models import files_of, tree
from integrations.libraries.conftest import Shelf
from textnlp_fast.errors import CorruptDataError
from textnlp_fast.integrations.urls import REPOSITORY_VARIABLE
from textnlp_fast.storage import Repository
from textnlp_fast.storage.registry.registry import Registry

fsspec: Any = pytest.importorskip("fsspec")
abstract = pytest.importorskip("fsspec.tests.abstract")
from textnlp_fast.integrations.fsspec import TextnlpFileSystem, register  # noqa: E402

WEIGHTS = "org/tiny@1.1.0/model-00001.safetensors"


@pytest.fixture
def fs(shelf: Shelf) -> Any:
    register()
    TextnlpFileSystem.clear_instance_cache()
    return fsspec.filesystem("textnlp", repo=shelf.path)


def test_the_tree(fs: Any, shelf: Shelf) -> None:
    assert fs.ls("", detail=False) == ["org", "solo@1.0.0"]
    assert fs.ls("org", detail=False) == ["org/tiny@1.0.0", "org/tiny@1.1.0"]
    assert fs.ls("textnlp://org/tiny@champion/tokenizer", detail=False) == [
        "org/tiny@champion/tokenizer/more",
        "org/tiny@champion/tokenizer/vocab.txt",
    ]
    files = {
        path
        for version in shelf.models
        for path in (f"org/tiny@{version}/{p}" for p in shelf.models[version])
    }
    assert set(fs.find("org")) == files
    assert set(fs.glob("org/*@1.1.0/**/*.txt")) == {
        path for path in files if "@1.1.0" in path and ".txt" in path
    }
    walked = {f"{folder}/{name}" for folder, _, names in fs.walk("org/tiny@1.0.0") for name in names}
    assert walked == {path for path in files if "@1.0.0" in path}
    assert fs.du("org/tiny@1.0.0") == sum(map(len, files_of(shelf.models["1.0.0"]).values()))


def test_what_is_said_of_a_file(fs: Any, shelf: Shelf) -> None:
    info = fs.info("textnlp://org/tiny@champion/config.json")
    assert (info["type"], info["size"], info["version"]) == ("file", 20, "1.0.0")
    assert fs.isdir("org") and fs.isdir("org/tiny@latest") and fs.isdir("org/tiny@latest/tokenizer")
    assert fs.isfile(WEIGHTS) and not fs.isdir(WEIGHTS)
    # What is the same in two versions is one file.
    assert fs.ukey("org/tiny@1.0.0/model-00002.safetensors") == fs.ukey(
        "org/tiny@1.1.0/model-00002.safetensors"
    )
    assert fs.checksum("org/tiny@1.0.0/model-00001.safetensors") != fs.checksum(WEIGHTS)
    assert fs.created(WEIGHTS).tzinfo is not None
    assert fs.modified(WEIGHTS) == fs.created(WEIGHTS)


@pytest.mark.parametrize(
    "path",
    [
        "none",
        "org/tiny",
        "org/tin",
        "org/tiny@9.0.0",
        "org/tiny@none",
        "org/tiny@1.0.0/none",
        "org/tiny@1.0.0/config.json/below",
        "org/tiny@1.0.0/../solo@1.0.0",
        "../etc/passwd",
        "org/tiny@1.0.0/.git/config",
        "@1.0.0",
        "org//tiny@1.0.0/config.json",
    ],
)
def test_what_is_not_there(fs: Any, path: str) -> None:
    for call in (fs.info, fs.ls, fs.cat_file, fs.open):
        with pytest.raises(FileNotFoundError):
            call(path)
    assert not fs.exists(path)


def test_a_model_without_a_version_says_what_to_write(fs: Any) -> None:
    with pytest.raises(FileNotFoundError, match="org/tiny@latest"):
        fs.ls("org/tiny")


def test_ranges(fs: Any, shelf: Shelf) -> None:
    content = files_of(shelf.models["1.1.0"])["model-00001.safetensors"]
    assert fs.cat_file(WEIGHTS) == content
    assert fs.cat_file(WEIGHTS, 10, 300) == content[10:300]
    assert fs.cat_file(WEIGHTS, -100, -1) == content[-100:-1]
    assert fs.cat_file(WEIGHTS, 300, 10) == b""
    starts, ends = [0, 5, 9000, len(content) - 5], [1, 5, 9100, len(content) + 5]
    assert fs.cat_ranges([WEIGHTS] * 4, starts, ends) == [
        content[begin:end] for begin, end in zip(starts, ends, strict=True)
    ]
    good, bad = fs.cat_ranges([WEIGHTS, "org/tiny@1.1.0/none"], 0, 3)
    assert good == content[:3] and isinstance(bad, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(["org/tiny@1.1.0/none"], [0], [3], on_error="raise")
    with pytest.raises(IsADirectoryError):
        fs.cat_file("org/tiny@1.1.0/tokenizer")


@pytest.mark.parametrize("cache_type", ["readahead", "none", "bytes", "mmap", "blockcache", "all"])
def test_an_open_file(fs: Any, shelf: Shelf, cache_type: str) -> None:
    content = files_of(shelf.models["1.1.0"])["model-00001.safetensors"]
    with fs.open(WEIGHTS, block_size=4096, cache_type=cache_type) as file:
        assert file.read(8) == content[:8]
        file.seek(-7, 2)
        assert file.read() == content[-7:]
        file.seek(9999)
        assert file.read(5000) == content[9999:14999]
        assert file.seek(0) == 0 and file.read() == content


def test_an_open_file_stays_what_it_was(shelf: Shelf, tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repo", create=True)
    for version, source in shelf.sources.items():
        repository.push(source, "m", version)
    registry = Registry(repository)
    registry.set_alias("m", "live", "1.0.0")
    fs = TextnlpFileSystem(repo=repository, skip_instance_cache=True)
    with fs.open("m@live/model-00001.safetensors") as file:
        registry.set_alias("m", "live", "1.1.0")
        assert file.read() == files_of(shelf.models["1.0.0"])["model-00001.safetensors"]
    assert (
        fs.cat_file("m@live/model-00001.safetensors")
        == files_of(shelf.models["1.1.0"])["model-00001.safetensors"]
    )


def test_urls_with_their_repository(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    with fsspec.open("textnlp://org/tiny@champion/config.json", repo=shelf.path) as file:
        assert file.read() == b'{"hidden_size": 128}'
    monkeypatch.setenv(REPOSITORY_VARIABLE, shelf.path)
    with fsspec.open("textnlp://solo@latest/tokenizer/vocab.txt", "rt") as file:
        assert file.read() == "one\ntwo\n"
    monkeypatch.delenv(REPOSITORY_VARIABLE)
    fs, path = fsspec.core.url_to_fs(f"textnlp://solo@latest/config.json?repo={shelf.path}")
    assert fs.cat_file(path) == b'{"hidden_size": 128}'


@pytest.mark.parametrize(
    "write",
    [
        lambda fs: fs.open("org/tiny@1.0.0/new", "wb"),
        lambda fs: fs.pipe_file("org/tiny@1.0.0/new", b""),
        lambda fs: fs.rm("org/tiny@1.0.0/config.json"),
        lambda fs: fs.rm("org/tiny@1.0.0", recursive=True),
        lambda fs: fs.mkdir("org/other@1.0.0"),
        lambda fs: fs.makedirs("org/other@1.0.0", exist_ok=True),
        lambda fs: fs.touch("org/tiny@1.0.0/config.json"),
        lambda fs: fs.mv("org/tiny@1.0.0/config.json", "org/tiny@1.0.0/c.json"),
        lambda fs: fs.cp_file("org/tiny@1.0.0/config.json", "org/tiny@1.0.0/c.json"),
        lambda fs: fs.put_file(__file__, "org/tiny@1.0.0/new"),
    ],
)
def test_nothing_is_written(fs: Any, write: Callable[[Any], object]) -> None:
    with pytest.raises(OSError, match="never change"):
        write(fs)
    assert not fs.exists("org/tiny@1.0.0/new")


def test_a_version_is_copied(fs: Any, shelf: Shelf, tmp_path: Path) -> None:
    fs.get("org/tiny@1.1.0/", str(tmp_path / "out") + "/", recursive=True)
    assert tree(tmp_path / "out") == files_of(shelf.models["1.1.0"])


def test_a_copy_that_fails_leaves_what_was_there(shelf: Shelf, tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repo", create=True)
    repository.push(shelf.sources["1.0.0"], "m", "1.0.0")
    for path in (tmp_path / "repo" / "objects").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(bytes(len(path.read_bytes())))
    place = tmp_path / "out" / "config.json"
    place.parent.mkdir()
    place.write_bytes(b"mine")
    fs = TextnlpFileSystem(repo=str(tmp_path / "repo"), skip_instance_cache=True)
    with pytest.raises(CorruptDataError):
        fs.get_file("m@1.0.0/config.json", str(place))
    assert tree(place.parent) == {"config.json": b"mine"}


def test_it_travels_to_other_processes(fs: Any) -> None:
    assert pickle.loads(pickle.dumps(fs)).cat_file("solo@1.0.0/config.json") == b'{"hidden_size": 128}'


def test_many_readers(fs: Any, shelf: Shelf) -> None:
    content = files_of(shelf.models["1.1.0"])["model-00001.safetensors"]
    wrong: list[int] = []

    def read(number: int) -> None:
        for begin in range(number, len(content), 997):
            if fs.cat_file(WEIGHTS, begin, begin + 50) != content[begin : begin + 50]:
                wrong.append(begin)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- what fsspec asks of every file system ----------------------------------------------------------------------


class Scenarios(abstract.AbstractFixtures):  # type: ignore[misc, name-defined]
    """The places that fsspec's tests read from, each pushed once as a version; the local side is theirs."""

    made: dict[str, str] = {}  # noqa: RUF012

    @pytest.fixture
    def fs(self, tmp_path_factory: pytest.TempPathFactory) -> Any:
        root = tmp_path_factory.getbasetemp() / "scenarios"
        Repository.open(root, create=True)
        return TextnlpFileSystem(repo=str(root), skip_instance_cache=True)

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def fs_path(self) -> str:
        return ""

    def scenario(self, fs: Any, name: str, tmp_path: Path) -> str:
        key = f"{fs.repository.url}{name}"
        if key not in self.made:
            local = fsspec.filesystem("file", auto_mkdir=True)
            getattr(self, f"_{name}")(local, lambda *parts: "/".join(parts), str(tmp_path / "made"))
            model = f"m{len(self.made)}"
            fs.repository.push(tmp_path / "made", model, "1.0.0")
            self.made[key] = f"{model}@1.0.0/source"
        return self.made[key]

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self, fs: Any, tmp_path: Path) -> Iterator[str]:
        yield self.scenario(fs, "bulk_operations_scenario_0", tmp_path)

    @pytest.fixture
    def fs_glob_edge_cases_files(self, fs: Any, tmp_path: Path) -> Iterator[str]:
        yield self.scenario(fs, "glob_edge_cases_files", tmp_path)

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self, fs: Any, tmp_path: Path) -> Iterator[str]:
        yield self.scenario(fs, "dir_and_file_with_same_name_prefix", tmp_path)

    @pytest.fixture
    def fs_10_files_with_hashed_names(self, fs: Any, tmp_path: Path) -> Iterator[str]:
        yield self.scenario(fs, "10_files_with_hashed_names", tmp_path)


class TestGet(abstract.AbstractGetTests, Scenarios):  # type: ignore[misc, name-defined]
    #: Makes its directory by writing into the file system.
    test_get_directory_recursive = None
