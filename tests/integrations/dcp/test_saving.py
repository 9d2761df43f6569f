"""Distributed checkpoints over real gloo ranks: what is saved comes back, bit by bit, however it is sharded then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from integrations.dcp.forking import Launcher
from textnlp_fast.errors import CorruptDataError
from textnlp_fast.storage import Repository

RANKS = 4


@pytest.fixture(scope="module")
def saved(ranks: Launcher, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A repository with steps 1 and 2 of a net, and what the coordinator reported."""
    root = tmp_path_factory.mktemp("saved") / "repository"
    return root, ranks.run("save_steps", RANKS, url=str(root), steps=[1, 2, 2])[0]


def test_a_step_is_a_version_and_little_of_it_is_stored(saved: tuple[Path, Any]) -> None:
    root, (first, second, again) = saved
    repository = Repository.open(root)
    assert repository.versions("net") == ["0.0.1", "0.0.2"]
    assert (first["parent"], second["parent"]) == (None, "net@0.0.1")
    assert second["stored_bytes"] * 10 < first["stored_bytes"]
    assert again["already_there"]
    assert not again["stored_bytes"]
    assert repository.verify().ok
    assert [row.parent for row in repository.log("net")] == [None, "0.0.1"]


@pytest.mark.parametrize(("carried_bytes", "objects"), [(1 << 20, 1), (0, 5)])
def test_small_parts_are_one_object(
    ranks: Launcher, tmp_path: Path, carried_bytes: int, objects: int
) -> None:
    """The same version either way. Parts that are not carried are an object each, and one is the coordinator's."""
    root = tmp_path / "repository"
    (report,) = ranks.run("save_carried", 4, url=str(root), step=1, carried_bytes=carried_bytes)[0]
    assert len([*(root / "objects").rglob("*/*")]) == objects
    assert report["uploaded_bytes"] == sum(each.stat().st_size for each in (root / "objects").rglob("*/*"))
    repository = Repository.open(root)
    assert repository.verify(deep=True).ok
    assert ranks.run("load_step", 2, url=str(root), step=1) == [[], []]


def test_other_verbs_read_the_version(saved: tuple[Path, Any], tmp_path: Path) -> None:
    root, _ = saved
    repository = Repository.open(root)
    rows = repository.diff("net", "0.0.1", "0.0.2")
    changed = {row.name.rpartition(" ")[2] for row in rows if row.status == "changed"}
    assert changed == {f"model.{name}" for name in ("embed", "matrix", "cube", "words", "scalar")}
    assert sum(row.size for row in rows if row.name.endswith("model.embed")) == 501 * 64 * 2
    repository.pull("net", "0.0.2", tmp_path / "pulled")
    assert (tmp_path / "pulled" / "rank-3" / "model.safetensors").is_file()


def test_the_same_ranks_load_it(saved: tuple[Path, Any], ranks: Launcher) -> None:
    for step in (1, 2):
        assert ranks.run("load_step", RANKS, url=str(saved[0]), step=step) == [[]] * RANKS


def test_a_single_process_loads_it(saved: tuple[Path, Any], ranks: Launcher) -> None:
    assert ranks.run("load_step", 1, url=str(saved[0]), step=2) == [[]]


def test_equal_values_of_other_kinds_stay_what_they_are(ranks: Launcher, tmp_path: Path) -> None:
    for found in ranks.run("save_alike", 2, url=str(tmp_path / "repository")):
        assert len(found) == 7
        assert all(saved == loaded for saved, loaded in found)


def test_parts_of_it_are_loaded(saved: tuple[Path, Any], ranks: Launcher) -> None:
    assert all(all(right) for right in ranks.run("partial", RANKS, url=str(saved[0]), step=2))


def test_fewer_ranks_take_it_over(ranks: Launcher, tmp_path: Path) -> None:
    root = tmp_path / "repository"
    ranks.run("save_steps", RANKS, url=str(root), steps=[2])
    first, *others = ranks.run("reshard", RANKS, url=str(root), step=2)
    assert first["wrong"] == []
    assert all(other["wrong"] == [] for other in others)
    repository = Repository.open(root)
    assert repository.versions("net") == ["0.0.2", "0.0.3", "0.0.4"]
    # The same bytes, dealt out otherwise: what is new are frames that say so.
    raw = first["reports"][0]["raw_bytes"]
    assert all(report["stored_bytes"] * 5 < raw for report in first["reports"])
    assert repository.verify().ok


def test_pieces_along_two_axes(ranks: Launcher, tmp_path: Path) -> None:
    answers = ranks.run("two_dimensional", RANKS, url=str(tmp_path / "repository"))
    assert all(answer["right"] == [True, True] for answer in answers)
    assert answers[0]["second"]["stored_bytes"] < answers[0]["second"]["raw_bytes"] / 10
    assert Repository.open(tmp_path / "repository").verify().ok


def test_fsdp_and_its_optimizer_go_on_as_from_torchs_own_files(ranks: Launcher, tmp_path: Path) -> None:
    answers = ranks.run("fsdp", RANKS, url=str(tmp_path / "repository"), folder=str(tmp_path / "plain"))
    assert answers == [[True, True, True]] * RANKS
    assert Repository.open(tmp_path / "repository").manifest("fsdp").metadata == {"run": "a"}


def test_saving_behind_the_training(ranks: Launcher, tmp_path: Path) -> None:
    answers = ranks.run("asynchronous", RANKS, url=str(tmp_path / "repository"))
    assert all(answer["wrong"] == [[], []] for answer in answers)
    first, second = answers[0]["reports"]
    assert second["stored_bytes"] * 10 < first["stored_bytes"]  # another writer found what the first one left


def test_in_a_bucket(ranks: Launcher, s3_bucket: str, s3_server: Any) -> None:
    env = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": s3_server.endpoint_url,
    }
    url = f"s3://{s3_bucket}/models"
    (reports, *_) = ranks.run("save_steps", RANKS, env=env, url=url, steps=[1, 2])
    assert reports[1]["stored_bytes"] * 10 < reports[0]["stored_bytes"]
    assert ranks.run("load_step", 2, env=env, url=url, step=2) == [[], []]


@pytest.mark.parametrize("budget", [6 << 10, 1 << 30])
def test_long_chains_begin_anew(ranks: Launcher, tmp_path: Path, budget: int) -> None:
    answers = ranks.run("chain", 2, url=str(tmp_path / "repository"), length=12, budget=budget)
    assert all(answer["right"] for answer in answers)
    first, *later = answers[0]["stored"]
    assert max(later) * 5 < first  # whatever is held: the bytes are the same
    assert Repository.open(tmp_path / "repository").verify().ok


def test_what_was_pushed_as_files_is_a_checkpoint(ranks: Launcher, tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    whole = {
        "layer.a": np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32),
        "layer.b": np.arange(16, dtype=np.float32),
    }
    numpy.save_file(whole, tmp_path / "model.safetensors")
    Repository.open(tmp_path / "repository", create=True).push(
        tmp_path / "model.safetensors", "files", "1.0.0"
    )
    first, second = ranks.run("pushed", 2, url=str(tmp_path / "repository"))
    expected = {name: tensor.tobytes().hex() for name, tensor in whole.items()}
    assert first["loaded"] == second["loaded"] == expected
    assert first["report"]["parent"] == "files@1.0.0"
    assert first["report"]["stored_bytes"] * 4 < first["report"]["raw_bytes"]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def test_a_damaged_object_is_noticed(ranks: Launcher, tmp_path: Path) -> None:
    root = tmp_path / "repository"
    ranks.run("save_steps", 2, url=str(root), steps=[1])
    largest = max((root / "objects").rglob("*"), key=_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.chmod(0o644)
    largest.write_bytes(data)
    answers = ranks.attempt("load_step", 2, url=str(root), step=1)
    assert any(
        CorruptDataError.__name__ in answer["error"] or "Digest" in answer["error"] for answer in answers
    )


@pytest.mark.parametrize("lost", ["all", "some", "bits"])
def test_a_parent_that_cannot_be_read_stops_no_training(ranks: Launcher, tmp_path: Path, lost: str) -> None:
    root = tmp_path / "repository"
    ranks.run("save_carried", 2, url=str(root), step=1, carried_bytes=0)
    objects = sorted((path for path in (root / "objects").rglob("*") if path.is_file()), key=_size)
    for path in objects if lost == "all" else objects[-1:]:
        data = bytearray(path.read_bytes())
        path.unlink()
        if lost == "bits":
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    second, _ = ranks.run("save_steps", 2, url=str(root), steps=[2])
    assert second[0]["parent"] == "net@0.0.1"
    manifest = Repository.open(root).manifest("net", "0.0.2")
    assert manifest.coded_against == (None if lost == "all" else ("net", "0.0.1"))
    if lost != "bits":  # pieces that did not change are where they were, in an object whose digest is wrong
        assert Repository.open(root).verify("net", "0.0.2").ok
    assert ranks.run("load_step", 1, url=str(root), step=2) == [[]]


def test_pickles_are_refused_on_both_sides(ranks: Launcher, tmp_path: Path) -> None:
    path = tmp_path / "tricked"
    for answer in ranks.run("pickles", 2, url=str(tmp_path / "repository"), path=str(path)):
        saving, loading, safe = answer["answers"]
        assert "allow_pickle" in saving or "no plain data" in saving
        assert "holds more than data" in loading
        assert (safe, answer["size"]) == ("", [2, 3])
        assert not answer["before"]
        assert answer["after"]


def test_reader_and_writer_name_versions_alike(ranks: Launcher, tmp_path: Path) -> None:
    for answer in ranks.run("named", 2, url=str(tmp_path / "repository")):
        assert answer["found"] == [1.0, 2.0, 1.0, 2.0]
        absent, word, path, high = answer["loads"]
        assert absent.startswith("VersionNotFoundError: vv has no version 0.0.9\nIt has: 0.0.1, 0.0.2")
        assert word.endswith("Pass the step's number alone: 1 is version 0.0.1.")
        assert path.endswith("Pass the step's number alone: 1 is version 0.0.1.")
        assert "too high for a step" in high
        for text, kind in zip(
            answer["readers"], ["ModelNot", "VersionNot", "VersionNot", "RepositoryNot"], strict=True
        ):
            assert text.startswith(f"{kind}FoundError: "), text
        # DCP did not look for metadata elsewhere.
        assert not answer["heard"]


def test_what_cannot_be_says_so(ranks: Launcher, tmp_path: Path) -> None:
    (said,) = ranks.run("refused", 1, url=str(tmp_path / "repository"))
    for text, expected in zip(
        said,
        [
            "other files",
            "complex128",
            "enable_plan_caching",
            "no model 'absent'",
            "Size mismatch",
        ],
        strict=True,
    ):
        assert expected in text, text
