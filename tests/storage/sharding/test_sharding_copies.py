"""Bytes go by the kernel where they can, through windows of any size where rows are cut."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.sharding.shard_models import (
    files_below,
    llama,
    read_bytes_by_name,
    write_model,
)
from textnlp_fast.storage import (
    merge_shards,
    shard_model,
)
from textnlp_fast.storage.sharding import copying


def test_bytes_that_stay_as_they_are_do_not_pass_through_this_process(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama(), files=2)
    probe = tmp_path / "probe"
    probe.write_bytes(b"12345678")
    with probe.open("rb") as reading, (tmp_path / "copy").open("wb") as writing:
        try:
            os.copy_file_range(reading.fileno(), writing.fileno(), 8)
        except OSError as error:
            pytest.skip(f"this kernel or file system copies no ranges: {error}")
    for strategy, ranks in (("size_based", None), ("layer_based", None), ("pipeline", 2)):
        report = shard_model(
            source, tmp_path / strategy, strategy=strategy, ranks=ranks, max_shard_bytes=9_000
        )  # type: ignore[arg-type]
        assert report.windowed_bytes == 0
    ranks_report = shard_model(source, tmp_path / "ranks", strategy="tensor_parallel", ranks=2)
    columns = sum(a.nbytes for n, a in llama().items() if "o_proj" in n or "down_proj" in n)
    assert ranks_report.windowed_bytes == columns


def test_a_kernel_that_cannot_copy_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path / "source", llama(), files=2)

    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    report = shard_model(source, tmp_path / "out", strategy="layer_based", max_shard_bytes=9_000)
    assert report.windowed_bytes == sum(array.nbytes for array in llama().values())
    assert read_bytes_by_name(tmp_path / "out") == read_bytes_by_name(source)


@settings(max_examples=25)
@given(st.integers(64, 4000), st.integers(1, 600), st.sampled_from([2, 4]))
def test_windows_of_any_size_cut_rows_alike(window: int, long_run: int, ranks: int) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(copying, "WINDOW_BYTES", window)
        patch.setattr(copying, "_LONG_RUN_BYTES", long_run)
        source = write_model(Path(folder) / "source", llama(layers=1))
        shard_model(source, Path(folder) / "out", strategy="tensor_parallel", ranks=ranks)
        shard_model(Path(folder) / "out", Path(folder) / "more", strategy="tensor_parallel", ranks=6 - ranks)
        merge_shards(Path(folder) / "more", Path(folder) / "back")
        assert files_below(Path(folder) / "back") == files_below(source)
