"""Traces: what is read is what is there, and what is no trace is refused by its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.errors import CorruptDataError, InvalidInputError
from textnlp_fast.gpu.scaling.spot.traces import UNLIMITED, read_traces, region_of, synthetic


def _write(folder: Path, name: str, document: object) -> None:
    (folder / name).write_text(json.dumps(document))


def test_reads_zones_and_cuts_them_to_the_shortest(tmp_path: Path) -> None:
    _write(tmp_path, "us-east-1a_v100_1.json", {"metadata": {"gap_seconds": 195}, "data": [0, 1, 1]})
    _write(tmp_path, "europe-west4-b_v100_1.json", {"metadata": {"gap_seconds": 195}, "data": [4, 0]})
    traces = read_traces(tmp_path)
    assert traces.gap_s == 195 and traces.ticks == 2
    assert [(one.zone, one.region, one.capacity) for one in traces.zones] == [
        ("europe-west4-b", "europe-west4", (4, 0)),
        ("us-east-1a", "us-east-1", (0, 1)),
    ]
    assert [one.capacity for one in traces.limited(None).zones] == [(UNLIMITED, 0), (0, UNLIMITED)]
    assert [one.capacity for one in traces.limited(2).zones] == [(2, 0), (0, 2)]
    assert traces.between(1).ticks == 1
    with pytest.raises(InvalidInputError):
        traces.between(2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"data": [1]}',
        '{"metadata": {"gap_seconds": 195}}',
        '{"metadata": {"gap_seconds": 0}, "data": [1]}',
        '{"metadata": {"gap_seconds": NaN}, "data": [1]}',
        '{"metadata": {"gap_seconds": true}, "data": [1]}',
        '{"metadata": {"gap_seconds": "195"}, "data": [1]}',
        '{"metadata": {"gap_seconds": 195}, "data": []}',
        '{"metadata": {"gap_seconds": 195}, "data": {"0": 1}}',
        '{"metadata": {"gap_seconds": 195}, "data": [1, -1]}',
        '{"metadata": {"gap_seconds": 195}, "data": [1, 0.5]}',
        '{"metadata": {"gap_seconds": 195}, "data": [true]}',
        '{"metadata": {"gap_seconds": 195}, "data": [1, null]}',
        '{"metadata": {"gap_seconds": 195}, "data": [99999999999999999999]}',
        '{"metadata": []}',
        "[" * 100_000,
        "\x00\xff",
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "us-east-1a_v100_1.json").write_text(text, encoding="latin-1")
    with pytest.raises(CorruptDataError, match="us-east-1a_v100_1") as caught:
        read_traces(tmp_path)
    assert "gap_seconds" in str(caught.value.hint)


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_trace_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "z.json").write_bytes(data)
    with pytest.raises(CorruptDataError):
        read_traces(folder)


def test_several_gaps_two_of_a_zone_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        read_traces(tmp_path)
    _write(tmp_path, "a_v100_1.json", {"metadata": {"gap_seconds": 195}, "data": [0]})
    _write(tmp_path, "b_v100_1.json", {"metadata": {"gap_seconds": 300}, "data": [0]})
    with pytest.raises(CorruptDataError, match="several gaps"):
        read_traces(tmp_path)
    (tmp_path / "b_v100_1.json").unlink()
    _write(tmp_path, "a_k80_1.json", {"metadata": {"gap_seconds": 195}, "data": [0]})
    with pytest.raises(CorruptDataError, match="two traces"):
        read_traces(tmp_path)


@pytest.mark.parametrize(
    ("zone", "region"), [("us-east-1a", "us-east-1"), ("us-central1-c", "us-central1"), ("1", "1"), ("", "")]
)
def test_regions(zone: str, region: str) -> None:
    assert region_of(zone) == region


def test_made_up_zones_are_the_same_for_the_same_seed_and_up_as_asked() -> None:
    one, again, other = (synthetic(seed=seed, ticks=6000) for seed in (1, 1, 2))
    assert one == again and one != other
    assert [len(zone.capacity) for zone in one.zones] == [6000] * 9
    up = [sum(zone.capacity) / 6000 for zone in one.zones]
    assert sum(up[:4]) / 4 < sum(up[6:]) / 3
    # Zones of a region go together more often than those of two.
    gone = [
        [a and not b for a, b in zip(zone.capacity, zone.capacity[1:], strict=False)] for zone in one.zones
    ]
    same = sum(a and b for a, b in zip(gone[6], gone[7], strict=True))
    apart = sum(a and b for a, b in zip(gone[6], gone[4], strict=True))
    assert same > apart
