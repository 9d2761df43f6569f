"""Whatever byte of a shard is another one, no model comes out of it; and `shards.json` says of each what it was."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blake3
import pytest

from storage.sharding.shard_models import config_of, files_below, llama, write_model
from textnlp_fast.cli.program import run
from textnlp_fast.contents.documents import seal_document
from textnlp_fast.errors import CorruptDataError, InvalidInputError
from textnlp_fast.storage import Repository, merge_shards, shard_model

STRATEGIES = {"layer_based": None, "pipeline": 2, "tensor_parallel": 2}


@pytest.fixture(params=STRATEGIES)
def shards(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    source = write_model(tmp_path / "source", llama(layers=2), files=2)
    ranks = STRATEGIES[request.param]
    shard_model(source, tmp_path / "shards", strategy=request.param, ranks=ranks, max_shard_bytes=20_000)
    return tmp_path / "shards"


def header_of(data: bytes) -> tuple[int, dict[str, Any]]:
    """Where a file's tensors begin, and what its header says of them, by the order of their bytes."""
    begin = 8 + int.from_bytes(data[:8], "little")
    entries = json.loads(data[8:begin])
    entries.pop("__metadata__", None)
    return begin, dict(sorted(entries.items(), key=lambda item: item[1]["data_offsets"]))


def tensors_of(path: Path) -> dict[str, bytes]:
    data = path.read_bytes()
    begin, entries = header_of(data)
    return {
        name: data[begin + entry["data_offsets"][0] : begin + entry["data_offsets"][1]]
        for name, entry in entries.items()
    }


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def change_record(shards: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((shards / "shards.json").read_bytes())
    document.pop("digest")
    change(document)
    (shards / "shards.json").write_bytes(seal_document(document))


def forget_digests(document: dict[str, Any]) -> None:
    """The record as it was before there were digests in it."""
    for entry in [*document["files"], *document["originals"]]:
        entry.pop("digests")


def test_every_tensor_of_every_file_has_its_digest(shards: Path) -> None:
    document = json.loads((shards / "shards.json").read_bytes())

    def digests(parts: list[bytes]) -> str:
        return base64.b64encode(b"".join(blake3.blake3(part).digest() for part in parts)).decode()

    for entry in document["files"]:
        data = (shards / entry["path"]).read_bytes()
        header = data[: header_of(data)[0]]
        assert entry["digests"] == digests([header, *tensors_of(shards / entry["path"]).values()])
    for entry in document["originals"]:
        assert entry["digests"] == digests(
            list(tensors_of(shards.parent / "source" / entry["path"]).values())
        )


@pytest.mark.parametrize("threads", [1, 4])
def test_a_byte_that_is_another_anywhere_is_found_by_merge_and_reshard(shards: Path, threads: int) -> None:
    for path in sorted(shards.rglob("*.safetensors")):
        before = path.read_bytes()
        begin, entries = header_of(before)
        for name, entry in entries.items():
            first, end = entry["data_offsets"]
            flip(path, begin + (first if len(name) % 2 else end - 1))
            with pytest.raises(CorruptDataError, match=f"{path}: tensor '{name}'"):
                merge_shards(shards, shards.parent / "out", threads=threads)
            path.write_bytes(before)
        flip(path, begin + 100)
        with pytest.raises(CorruptDataError, match=str(path)):
            shard_model(shards, shards.parent / "out", strategy="tensor_parallel", ranks=4, threads=threads)
        path.write_bytes(before)
    assert sorted(each.name for each in shards.parent.iterdir()) == ["shards", "source"]
    merge_shards(shards, shards.parent / "back", threads=threads)
    assert files_below(shards.parent / "back") == files_below(shards.parent / "source")


def test_two_tensors_whose_names_changed_places_are_found(shards: Path) -> None:
    path = next(each for each in sorted(shards.rglob("*.safetensors")) if b"gate_proj" in each.read_bytes())
    data = path.read_bytes()
    swapped = (
        data.replace(b"gate_proj", b"@@@@@").replace(b"up_proj", b"gate_proj").replace(b"@@@@@", b"up_proj")
    )
    path.write_bytes(swapped)
    assert len(swapped) == len(data)
    with pytest.raises(CorruptDataError, match="its header is not"):
        merge_shards(shards, shards.parent / "out")


def test_the_command_says_which_tensor_and_leaves_nothing(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sorted(shards.rglob("*.safetensors"))[-1]
    flip(path, path.stat().st_size - 1)
    out = shards.parent / "out"
    for words in (
        ["merge", str(shards), str(out)],
        ["reshard", str(shards), str(out), "--strategy", "size_based"],
    ):
        with pytest.raises(SystemExit) as ended:
            run(words)
        assert ended.value.code == 5
        assert f"{path}: tensor" in capsys.readouterr().err
        assert not out.exists()


def test_a_shard_that_is_missing_is_no_smaller_model(shards: Path) -> None:
    sorted(shards.rglob("*.safetensors"))[0].unlink()
    with pytest.raises(InvalidInputError, match="not there"):
        merge_shards(shards, shards.parent / "out")


def test_a_record_without_digests_is_read_and_said(shards: Path) -> None:
    change_record(shards, forget_digests)
    report = merge_shards(shards, shards.parent / "back")
    assert any("not checked" in note for note in report.notes)
    assert files_below(shards.parent / "back") == files_below(shards.parent / "source")
    report = shard_model(shards, shards.parent / "again", strategy="layer_based")
    document = json.loads((shards.parent / "again" / "shards.json").read_bytes())
    assert all("digests" in entry for entry in document["files"])


def test_files_that_took_the_place_of_shards_are_not_held_against_their_record(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama(layers=2), files=2)
    shard_model(source, tmp_path / "shards", strategy="layer_based", max_shard_bytes=20_000)
    for path in (tmp_path / "shards").glob("model*"):
        path.unlink()
    write_model(tmp_path / "shards", llama(1, layers=2), files=3)
    report = merge_shards(tmp_path / "shards", tmp_path / "out")
    assert any("other files" in note for note in report.notes)


def other(entry: dict[str, Any]) -> str:
    data = bytearray(base64.b64decode(entry["digests"]))
    data[-1] ^= 1
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["files"][0].update(digests="!"), "base 64"),
        (lambda d: d["files"][0].update(digests="AAAA"), "no multiple of 32"),
        (lambda d: d["files"][0].update(digests=5), "digests"),
        (lambda d: d["files"][0].update(digests=base64.b64encode(bytes(32)).decode()), "header"),
        (lambda d: d["originals"][0].update(digests=d["originals"][1]["digests"]), "digests of 'model-00001"),
        (lambda d: d["originals"][0].update(digests=other(d["originals"][0])), "does not have the bytes"),
    ],
)
def test_a_record_whose_digests_are_others_is_refused(
    shards: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    change_record(shards, change)
    with pytest.raises(CorruptDataError, match=message):
        merge_shards(shards, shards.parent / "out")
    assert not (shards.parent / "out").exists()


def damaged_copy(tmp_path: Path) -> Path:
    """Ranks of which one has another byte in a tensor that both hold whole."""
    source = write_model(tmp_path / "source", llama(kv_heads=1), config_of(kv_heads=1))
    shard_model(source, tmp_path / "ranks", strategy="tensor_parallel", ranks=2)
    path = tmp_path / "ranks" / "rank-1" / "model.safetensors"
    begin, entries = header_of(path.read_bytes())
    flip(path, begin + entries["model.norm.weight"]["data_offsets"][0])
    return tmp_path / "ranks"


def test_a_copy_of_which_another_is_used_is_checked_too(tmp_path: Path) -> None:
    ranks = damaged_copy(tmp_path)
    with pytest.raises(CorruptDataError, match=r"rank-1/model\.safetensors: tensor 'model\.norm\.weight'"):
        merge_shards(ranks, tmp_path / "back")
    change_record(ranks, forget_digests)  # then copies are all there is to compare
    with pytest.raises(CorruptDataError, match=r"different bytes of tensor 'model\.norm\.weight'"):
        merge_shards(ranks, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_stored_shards_that_were_damaged_before_they_were_pushed_are_found(tmp_path: Path) -> None:
    ranks = damaged_copy(tmp_path)
    repository = Repository.open(tmp_path / "repository", create=True)
    repository.push(ranks, "m", "1.0.0")
    with pytest.raises(CorruptDataError, match=r"rank-1/model\.safetensors: tensor 'model\.norm\.weight'"):
        merge_shards("m@1.0.0", tmp_path / "back", repository=repository)
    old = shutil.copytree(ranks, tmp_path / "old")
    change_record(old, forget_digests)
    repository.push(old, "m", "1.1.0")
    with pytest.raises(CorruptDataError, match=r"different bytes of tensor 'model\.norm\.weight'"):
        merge_shards("m@1.1.0", tmp_path / "back", repository=repository)


def test_what_a_merge_and_a_pull_leave_beside_the_model_is_what_the_guides_exclude(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama(layers=1))
    shard_model(source, tmp_path / "ranks", strategy="tensor_parallel", ranks=2)
    merge_shards(tmp_path / "ranks", tmp_path / "merged")
    repository = Repository.open(tmp_path / "repository", create=True)
    repository.push(source, "m", "1.0.0")
    repository.pull("m", "1.0.0", tmp_path / "pulled")
    for place in ("merged", "pulled"):
        command = ["diff", "-r", str(source), str(tmp_path / place)]
        assert subprocess.run(command, check=False, capture_output=True).returncode == 1
        subprocess.run([*command, "--exclude=.textnlp-fast*"], check=True)
    repository.push(tmp_path / "merged", "m", "1.1.0")
    assert {entry.path for entry in repository.manifest("m", "1.1.0").files} == files_below(source).keys()
