"""`shards.json` comes from strangers: whatever it says, a typed error or the right bytes come out."""

from __future__ import annotations

import base64
import json
import shutil
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.sharding.shard_models import config_of, files_below, llama, write_model
from textnlp_fast.contents.documents import seal_document
from textnlp_fast.errors import CorruptDataError, TextnlpFastError, UnsupportedFormatError
from textnlp_fast.storage import Repository, merge_shards, shard_model

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    write_model(folder / "source", llama(layers=1), files=2)
    shard_model(folder / "source", folder / "ranks", strategy="tensor_parallel", ranks=2)
    return folder


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything in a document."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


@settings(max_examples=150)
@given(st.data())
def test_a_record_that_says_something_else(ranks: Path, data: st.DataObject) -> None:
    document = json.loads((ranks / "ranks" / "shards.json").read_bytes())
    document.pop("digest")
    where = data.draw(st.sampled_from(places(document)))
    inner = document
    for key in where[:-1]:
        inner = inner[key]
    if data.draw(st.booleans()):
        inner[where[-1]] = data.draw(JSON)
    else:
        del inner[where[-1]]
    record = ranks / "ranks" / "shards.json"
    before = record.read_bytes()
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        record.write_bytes(seal_document(document))
        try:
            merge_shards(ranks / "ranks", Path(folder) / "back")
        except TextnlpFastError:
            assert not (Path(folder) / "back").exists()
        else:
            found = files_below(Path(folder) / "back")
            wanted = files_below(ranks / "source")
            # The names of files and what is said for people may be others; the tensors' bytes may not.
            sizes = sorted(len(each) for name, each in found.items() if name.endswith(".safetensors"))
            assert sizes and sum(sizes) >= sum(a.nbytes for a in llama(layers=1).values())
            assert found["tokenizer.json"] == wanted["tokenizer.json"]
        finally:
            record.write_bytes(before)


def resealed(ranks: Path, change: Any) -> Any:
    record = ranks / "ranks" / "shards.json"
    before = record.read_bytes()
    document = json.loads(before)
    document.pop("digest")
    change(document)
    record.write_bytes(seal_document(document))
    try:
        return merge_shards(ranks / "ranks", ranks / "never")
    finally:
        record.write_bytes(before)


def bomb(document: dict[str, Any]) -> None:
    packed = base64.b64encode(zlib.compress(b"\0" * (64 << 20), 9)).decode()
    document["originals"][0]["header"] = {"size": 100, "zlib": packed}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bomb, "does not have its 100 bytes"),
        (lambda d: d["originals"][0].update(path="../../outside"), "relative path"),
        (lambda d: d["files"][0].update(path="/etc/passwd"), "relative path"),
        (lambda d: d["files"][0].update(size=5), "bytes; shards.json says 5"),
        (lambda d: d["tensors"].pop(), "does not speak of"),
        (lambda d: d["tensors"][0]["parts"][0].update(file=99), "is in file 99"),
        (lambda d: d["tensors"][0].update(shape=[1 << 60]), "no list of sizes|does not hold"),
    ],
)
def test_a_record_that_would_lead_elsewhere(ranks: Path, change: Any, message: str) -> None:
    with pytest.raises(CorruptDataError, match=message):
        resealed(ranks, change)
    assert not (ranks / "never").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["tensors"].pop(), "does not speak of"),
        (lambda d: d["tensors"][1]["parts"].pop(), "not speak of all parts|no rank holds"),
        (lambda d: d["tensors"][1]["shape"].__setitem__(0, 64), "does not hold tensor"),
        (lambda d: d["tensors"][1]["parts"][0].update(ranges=[[0, 1]]), "does not hold tensor"),
        (lambda d: d["tensors"][1]["parts"][0].update(file=1), "does not hold tensor"),
    ],
)
def test_a_stored_record_that_does_not_fit_is_found(
    ranks: Path, tmp_path: Path, change: Any, message: str
) -> None:
    place = shutil.copytree(ranks / "ranks", tmp_path / "ranks")
    document = json.loads((place / "shards.json").read_bytes())
    document.pop("digest")
    change(document)
    (place / "shards.json").write_bytes(seal_document(document))
    repository = Repository.open(tmp_path / "repository", create=True)
    repository.push(place, "m", "1.0.0")
    with pytest.raises(TextnlpFastError, match=message):
        merge_shards("m", tmp_path / "back", repository=repository)
    assert not (tmp_path / "back").exists()


def test_a_record_of_a_later_format_is_refused(ranks: Path) -> None:
    with pytest.raises(UnsupportedFormatError):
        resealed(ranks, lambda document: document.update(format=2))


def test_a_rank_that_is_missing_is_found(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama(layers=1))
    shard_model(source, tmp_path / "ranks", strategy="tensor_parallel", ranks=2)
    (tmp_path / "ranks" / "rank-1" / "model.safetensors").unlink()
    with pytest.raises(TextnlpFastError, match="not there"):
        merge_shards(tmp_path / "ranks", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@settings(max_examples=25)
@given(
    st.sampled_from([(4, 1), (4, 2), (4, 4), (8, 2), (6, 3)]),
    st.sampled_from([1, 2, 3, 4, 6, 8]),
    st.sampled_from([1, 2, 3, 4, 6, 8]),
    st.integers(1, 3),
    st.integers(100, 20_000),
    st.booleans(),
)
def test_any_ranks_become_any_others_and_the_model_again(
    heads: tuple[int, int], first: int, second: int, head: int, max_shard_bytes: int, moe: bool
) -> None:
    model = llama(
        layers=2, heads=heads[0], kv_heads=heads[1], head=4 * head, inner=48, words=48, experts=2 * moe
    )
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        place = Path(folder)
        source = write_model(place / "source", model, config_of(heads=heads[0], kv_heads=heads[1]))
        try:
            for before, after, ranks in (("source", "a", first), ("a", "b", second)):
                shard_model(
                    place / before,
                    place / after,
                    strategy="tensor_parallel",
                    ranks=ranks,
                    max_shard_bytes=max_shard_bytes,
                    model_id="m",
                )
        except TextnlpFastError as error:
            assert "heads" in str(error) or "no multiple of" in str(error)
            return
        shard_model(
            source,
            place / "direct",
            strategy="tensor_parallel",
            ranks=second,
            max_shard_bytes=max_shard_bytes,
            model_id="m",
        )
        assert files_below(place / "b") == files_below(place / "direct")
        merge_shards(place / "b", place / "back")
        assert files_below(place / "back") == files_below(source)
