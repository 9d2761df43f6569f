"""Traces that are read, hostile ones among them, and traces that are made."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.simulator import traces
from textnlp_fast.gpu.scaling.simulator.seasons import Seasons, made_trace
from textnlp_fast.gpu.scaling.simulator.traces import RateTrace, RequestTrace, read_trace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
RATES = "time_s,requests_per_s\n"
REQUESTS = "arrival_s,prompt_tokens,output_tokens\n"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "trace.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rates(tmp_path: Path) -> None:
    found = read_trace(written(tmp_path, "\ufeff" + RATES + "0,1.5\r\n600,2\r\n\r\n1200,0\r\n"))
    assert found == RateTrace(name="trace", times_s=[0, 600, 1200], rates=[1.5, 2, 0])
    assert found.days == pytest.approx(1200 / 86400)


def test_azures_requests(tmp_path: Path) -> None:
    text = AZURE + "2023-11-16 18:15:50.9951690,396,109\n2023-11-16 18:15:46.6805900,374,44\n"
    found = read_trace(
        written(tmp_path, text + "2024-05-10 00:00:00.009930+02:00,1,2\n2023-11-16 18:16:00,5,6\n")
    )
    assert isinstance(found, RequestTrace)
    assert found.start_s == 1700158546.0
    assert list(found.arrivals_s[:3]) == pytest.approx([0.68059, 4.995169, 14.0], abs=1e-6)
    assert list(found.prompt_tokens[:2]) == [374, 396]
    assert found.start_s + found.arrivals_s[3] == pytest.approx(1715292000.00993, abs=1e-5)


def test_requests_as_lines_of_either_kind(tmp_path: Path) -> None:
    lines = '{"arrival_s": 100.5, "prompt_tokens": 7, "output_tokens": 3, "user": "x"}\n\n'
    one = read_trace(written(tmp_path, lines))
    two = read_trace(written(tmp_path, REQUESTS + "100.5,7,3\n"))
    assert one == two
    assert isinstance(one, RequestTrace)
    assert (one.start_s, list(one.arrivals_s)) == (100.0, [0.5])
    assert one.first(1e-9).arrivals_s == one.arrivals_s, "one request is left at least"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no header"),
        ("a,b\n1,2\n", "line 1"),
        ('"time_s\n', "line 1"),
        (RATES, "has 0 rates"),
        (RATES + "0,1\n", "has 1 rates"),
        (RATES + "0,1\n1,nan\n", "line 3"),
        (RATES + "0,1\n1,-1\n", "line 3"),
        (RATES + "0,1\ninf,1\n", "line 3"),
        (RATES + "0,1\n0,1\n", "line 3: time 0 s does not come after"),
        (RATES + "0,1\n\n\nx,1\n", "line 5: time_s is 'x', no number"),
        (RATES + "0,1\n1\n", "line 3: 1 values where the header has 2"),
        (RATES + "0,1\n1,1,1\n", "line 3: 3 values"),
        (RATES + "0,1\n1e9,1\n", "line 3: a trace may last 400 days"),
        (RATES + "0," + "1" * 5000 + "\n", "line 2: the line is longer"),
        (REQUESTS, "has no requests"),
        (REQUESTS + "0,-1,1\n", "line 2: tokens"),
        (REQUESTS + "0,1,1e99\n", "line 2: tokens"),
        (REQUESTS + "nan,1,1\n", "line 2: a time"),
        (REQUESTS + "0,1,1\n1e12,1,1\n", "line 3: a trace may last"),
        (AZURE + "yesterday,1,1\n", "line 2: 'yesterday' is no time"),
        (AZURE + "2023-11-16 18:15:46.x,1,1\n", "line 2"),
        (AZURE + "2023-02-30 00:00:00,1,1\n", "line 2"),
        (AZURE + "2023-11-16 18:15:46,1,x\n", "line 2: GeneratedTokens"),
        ('{"arrival_s": 0}\n', "line 1: prompt_tokens, output_tokens is missing"),
        (
            '{"arrival_s": 0, "prompt_tokens": true, "output_tokens": 1}\n',
            "line 1: prompt_tokens is no number",
        ),
        ('{"arrival_s": 0, "prompt_tokens": 1, "output_tokens": 1}\n[1]\n', "line 2: no JSON object"),
        ('{"arrival_s": 0, "prompt_tokens": 1, "output_tokens": 1}\n{"a"\n', "line 2: no JSON"),
        (
            '{"arrival_s": ' + "9" * 400 + ', "prompt_tokens": 1, "output_tokens": 1}',
            "line 1: a number is too large",
        ),
        ('{"arrival_s": NaN, "prompt_tokens": 1, "output_tokens": 1}', "line 1: a time must be finite"),
        ('{"a":' * 600 + "1", "line 1: no JSON"),
        (b"\xff\xfe\x00time_s", "no text"),
        (RATES.encode() + b"0,1\n1,\xc3(\n", "no text"),
    ],
)
def test_hostile_files_are_told_apart_with_their_line(tmp_path: Path, text: str | bytes, told: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(told)):
        read_trace(written(tmp_path, text))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InvalidInputError, match="cannot be read"):
            read_trace(path)


def test_a_file_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MAX_ROWS", 10)
    text = REQUESTS + "".join(f"{k},1,1\n" for k in range(12))
    with pytest.raises(InvalidInputError, match="line 12: a trace may have 10 lines"):
        read_trace(written(tmp_path, text))


@given(
    st.binary(max_size=200), st.sampled_from([b"", RATES.encode(), REQUESTS.encode(), AZURE.encode(), b"{"])
)
@settings(deadline=None, max_examples=200)
def test_whatever_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, head: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.csv"
    path.write_bytes(head + noise)
    try:
        found = read_trace(path)
    except InvalidInputError:
        return
    assert found.days >= 0


@given(
    st.lists(
        st.tuples(st.floats(0, 1e5), st.integers(0, 10_000), st.integers(0, 10_000)), min_size=1, max_size=50
    )
)
@settings(deadline=None, max_examples=50)
def test_requests_survive_being_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, int, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    path.write_text(REQUESTS + "".join(f"{a!r},{b},{c}\n" for a, b, c in rows))
    found = read_trace(path)
    assert isinstance(found, RequestTrace)
    again = [
        (round(found.start_s + at, 6), prompt, output)
        for at, prompt, output in zip(found.arrivals_s, found.prompt_tokens, found.output_tokens, strict=True)
    ]
    assert sorted(again) == sorted((round(a, 6), b, c) for a, b, c in rows)
    traffic = found.traffic()
    assert sum(traffic.requests) == len(rows)
    assert math.fsum(traffic.prompt_tokens) == pytest.approx(sum(row[1] for row in rows))


def test_made_traces_have_days_weeks_growth_and_launches() -> None:
    calm = Seasons(launches_a_week=0, growth_a_week=0.0)
    plain = made_trace(days=14, seed=1, seasons=calm)
    assert plain.rates[: 5 * 144] == pytest.approx(plain.rates[7 * 144 : 12 * 144])
    day, saturday = plain.rates[:144], plain.rates[5 * 144 : 6 * 144]
    assert sum(day) / 144 == pytest.approx(calm.mean, rel=0.01)
    assert min(day) / max(day) == pytest.approx(calm.night, rel=0.1)
    assert saturday == pytest.approx([0.45 * rate for rate in day])
    grown = made_trace(days=14, seed=1, seasons=Seasons(launches_a_week=0, growth_a_week=0.5))
    assert grown.rates[7 * 144] == pytest.approx(1.5 * plain.rates[7 * 144])
    launched = made_trace(days=14, seed=1, seasons=Seasons(growth_a_week=0.0))
    peaks = [a / b for a, b in zip(launched.rates, plain.rates, strict=True)]
    assert 2.2 < max(peaks) <= 2.5 + 1e-9
    assert made_trace(days=14, seed=1) == made_trace(days=14, seed=1) != made_trace(days=14, seed=2)


@pytest.mark.parametrize("days", [0.0, -1.0, 401.0, math.nan])
def test_made_traces_have_an_end(days: float) -> None:
    with pytest.raises(InvalidInputError):
        made_trace(days=days)
