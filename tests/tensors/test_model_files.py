"""Model directories: what is kept, what is refused and what the refusal says."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from attacks.headers import file_of, tensor
from textnlp_fast.errors import InvalidInputError, SafetensorsError, UnsafeFileError
from textnlp_fast.tensors import ModelFiles, check_relative_path


def shard(*names: str) -> bytes:
    return file_of(
        {name: tensor(offsets=(4 * i, 4 * i + 4)) for i, name in enumerate(names)}, b"0123" * len(names)
    )


def index(**weight_map: str) -> bytes:
    return json.dumps({"metadata": {"total_size": 8}, "weight_map": weight_map}).encode()


def torch_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
        archive.writestr("archive/data/0", b"0123")
    return buffer.getvalue()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A sharded directory with a nested one."""
    root = tmp_path / "model"
    (root / "text_encoder").mkdir(parents=True)
    (root / "model-00001-of-00002.safetensors").write_bytes(shard("a", "b"))
    (root / "model-00002-of-00002.safetensors").write_bytes(shard("c"))
    (root / "model.safetensors.index.json").write_bytes(
        index(
            a="model-00001-of-00002.safetensors",
            b="model-00001-of-00002.safetensors",
            c="model-00002-of-00002.safetensors",
        )
    )
    (root / "config.json").write_text("{}")
    (root / "empty").write_bytes(b"")
    (root / "text_encoder" / "model.safetensors").write_bytes(shard("x"))
    return root


def test_takes_a_single_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(shard("a"))
    files = ModelFiles.scan(path)
    assert [file.name for file in files.safetensors] == ["model.safetensors"]
    assert files.root == tmp_path
    assert files.others == []


def test_takes_a_directory_with_all_in_it(model: Path) -> None:
    for skipped in (".git", ".cache"):
        (model / skipped).mkdir()
        (model / skipped / "thing.pkl").write_bytes(b"x")
    files = ModelFiles.scan(str(model))
    assert [file.name for file in files.safetensors] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "text_encoder/model.safetensors",
    ]
    assert [(other.name, other.size) for other in files.others] == [
        ("config.json", 2),
        ("empty", 0),
        ("model.safetensors.index.json", (model / "model.safetensors.index.json").stat().st_size),
    ]
    assert all((files.root / file.name).samefile(file.path) for file in [*files.safetensors, *files.others])


def test_a_folder_of_git_below_the_model_is_no_part_of_one(model: Path) -> None:
    """Beside the files it is passed over, as a file too; deeper it is refused: a pull would write hooks there."""
    (model / ".git").write_text("gitdir: /elsewhere")
    assert not any(".git" in other.name for other in ModelFiles.scan(model).others)
    hooks = model / "text_encoder" / ".Git" / "hooks"
    hooks.mkdir(parents=True)
    (hooks / "post-checkout").write_text("#!/bin/sh\n")
    with pytest.raises(UnsafeFileError, match="git runs what lies there"):
        ModelFiles.scan(model)


def test_says_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "weights.gguf").write_bytes(b"GGUF")
    (tmp_path / "empty").mkdir()
    for path, complaint in [("weights.gguf", "neither"), ("empty", "no files"), ("absent", "does not exist")]:
        with pytest.raises(InvalidInputError, match=complaint):
            ModelFiles.scan(tmp_path / path)


def test_a_broken_shard_is_named(model: Path) -> None:
    (model / "text_encoder" / "model.safetensors").write_bytes(shard("x")[:-1])
    with pytest.raises(SafetensorsError, match=r"text_encoder/model\.safetensors: .*the file at"):
        ModelFiles.scan(model)


# --- pickles ------------------------------------------------------------------------------------------------


class Bomb:
    """Leaves a trace if anybody unpickles it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pkl"])
def test_refuses_pickles_unread(model: Path, tmp_path: Path, name: str, protocol: int) -> None:
    trace = tmp_path / "trace"
    (model / name).write_bytes(pickle.dumps(Bomb(trace), protocol))
    with pytest.raises(UnsafeFileError, match=name) as caught:
        ModelFiles.scan(model)
    assert "weights_only=True" in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_refuses_pickles_under_any_name(model: Path, protocol: int) -> None:
    (model / "config.json").write_bytes(pickle.dumps({"weights": list(range(1000))}, protocol))
    with pytest.raises(UnsafeFileError, match=r"config\.json .*protocol"):
        ModelFiles.scan(model)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "MODEL.PTH", "readme.txt"])
def test_refuses_torch_archives(model: Path, name: str) -> None:
    (model / name).write_bytes(torch_zip())
    with pytest.raises(UnsafeFileError, match=name):
        ModelFiles.scan(model)


def test_refuses_an_archive_that_hides_its_directory(model: Path) -> None:
    (model / "data.bin").write_bytes(torch_zip()[:60])  # no directory left, but a first name
    with pytest.raises(UnsafeFileError, match=r"archive/data\.pkl"):
        ModelFiles.scan(model)


def test_names_all_pickles_at_once(model: Path) -> None:
    for number in range(8):
        (model / f"rng_state_{number}.pth").write_bytes(b"")
    with pytest.raises(UnsafeFileError, match=r"rng_state_0\.pth.*rng_state_4\.pth.*and 3 more"):
        ModelFiles.scan(model)
    files = ModelFiles.scan(model, exclude=["*.pth"])
    assert not any(other.name.endswith(".pth") for other in files.others)


def test_a_single_pickle_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(torch_zip())
    with pytest.raises(UnsafeFileError, match="safetensors"):
        ModelFiles.scan(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b"\x80\x03",
        b"\x80\x04random bytes that no pickle has",
        b"GGUF\x03\x00\x00\x00",
        random.Random(5).randbytes(100).replace(b"\x80", b"\x00"),
        b"plain text.\n",
        b"\x00" * 5000,
        b"PK\x03\x04",
    ],
)
def test_keeps_binary_files_that_are_no_pickles(model: Path, content: bytes) -> None:
    (model / "openvino_model.bin").write_bytes(content)
    assert "openvino_model.bin" in [other.name for other in ModelFiles.scan(model).others]


def test_keeps_archives_without_pickles(model: Path) -> None:
    with zipfile.ZipFile(model / "onnx.zip", "w") as archive:
        archive.writestr("model.onnx", b"x")
    assert "onnx.zip" in [other.name for other in ModelFiles.scan(model).others]


# --- links and special files --------------------------------------------------------------------------------


def test_follows_the_links_of_a_hub_cache(tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / "0123abcd"
    (snapshot / "sub").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "aaa").write_bytes(shard("a"))
    (repository / "blobs" / "bbb").write_bytes(b"{}")
    (snapshot / "model.safetensors").symlink_to("../../blobs/aaa")
    (snapshot / "sub" / "config.json").symlink_to("../../../blobs/bbb")
    files = ModelFiles.scan(snapshot)
    assert [file.name for file in files.safetensors] == ["model.safetensors"]
    assert [(other.name, other.size) for other in files.others] == [("sub/config.json", 2)]
    (repository / "secret").write_bytes(b"x")
    (snapshot / "other").symlink_to("../../secret")
    with pytest.raises(InvalidInputError, match="outside the model"):
        ModelFiles.scan(snapshot)


def test_a_pickle_behind_a_link_is_a_pickle(tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "a").write_bytes(torch_zip())
    (snapshot / "pytorch_model.bin").symlink_to("../../blobs/a")
    with pytest.raises(UnsafeFileError):
        ModelFiles.scan(snapshot)


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "../../../../../../etc/passwd"])
def test_refuses_links_that_leave(model: Path, target: str) -> None:
    (model.parent / "outside").write_bytes(b"x")
    (model / "vocab.txt").symlink_to(target)
    with pytest.raises(InvalidInputError, match=r"vocab\.txt"):
        ModelFiles.scan(model)


def test_refuses_links_to_directories_loops_and_nothing(model: Path) -> None:
    for name, target in [("folder", "text_encoder"), ("loop", "loop"), ("nothing", "absent"), ("up", "..")]:
        (model / name).symlink_to(target)
        with pytest.raises(InvalidInputError, match=name):
            ModelFiles.scan(model)
        (model / name).unlink()


def test_takes_links_inside(model: Path) -> None:
    (model / "same.json").symlink_to("config.json")
    assert "same.json" in [other.name for other in ModelFiles.scan(model).others]


def test_refuses_special_files(model: Path) -> None:
    os.mkfifo(model / "pipe")
    with pytest.raises(InvalidInputError, match="regular"):
        ModelFiles.scan(model)


def test_refuses_names_that_no_manifest_can_hold(model: Path) -> None:
    for name in [b"\xff\xfe", b"line\nbreak", b"back\\slash"]:
        path = os.path.join(os.fsencode(model), name)  # noqa: PTH118  bytes
        with open(path, "wb"):  # noqa: PTH123
            pass
        with pytest.raises(InvalidInputError, match="file name"):
            ModelFiles.scan(model)
        os.unlink(path)  # noqa: PTH108


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a",
        "a/",
        "../a",
        "a/../b",
        "a//b",
        ".",
        "..",
        "a/.",
        "a\\b",
        "a\x00",
        "\ud800",
        "x" * 256,
        "a\u202e",
        ".git",
        ".git/hooks/post-checkout",
        "a/.Git/config",
        ".GIT./config",
        ".git /config",
        ".git::$INDEX_ALLOCATION/config",
        "a/GIT~1/hooks/x",
    ],
)
def test_refuses_unsafe_relative_paths(name: str) -> None:
    with pytest.raises(InvalidInputError):
        check_relative_path(name)


@pytest.mark.parametrize(
    "name", ["a", "a/b.json", "...", ".gitattributes", "git/x", "x.git/y", ".github/z", "имя/файл", "a b"]
)
def test_takes_safe_relative_paths(name: str) -> None:
    assert check_relative_path(name) == name


# --- the index ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (index(a="model-00003-of-00002.safetensors"), "not there"),
        (index(a="model-00002-of-00002.safetensors"), "does not hold it"),
        (index(zzz="model-00001-of-00002.safetensors"), "'zzz'"),
        (index(a="../model/model-00001-of-00002.safetensors"), "not there"),
        (index(a="config.json"), "not there"),
        (json.dumps({"weight_map": {"a": 1}}).encode(), "not there"),
        (b"{}", "no weight_map"),
        (b"[]", "no weight_map"),
        (b'{"weight_map": []}', "no weight_map"),
        (b"nonsense", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff", "not JSON"),
    ],
)
def test_an_index_must_agree_with_the_files(model: Path, content: bytes, complaint: str) -> None:
    (model / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(InvalidInputError, match=complaint):
        ModelFiles.scan(model)


def test_indices_of_subdirectories_and_variants_are_checked(model: Path) -> None:
    good = index(x="model.safetensors")
    for name in ("diffusion.safetensors.index.json", "diffusion.safetensors.index.fp16.json"):
        path = model / "text_encoder" / name
        path.write_bytes(good)
        ModelFiles.scan(model)
        path.write_bytes(good.replace(b'"x"', b'"y"'))
        with pytest.raises(InvalidInputError, match=name):
            ModelFiles.scan(model)
        path.unlink()
