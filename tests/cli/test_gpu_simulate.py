"""`gpu simulate`, as people and scripts call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

DAY = ("gpu", "simulate", "--days", "0.25", "--policy", "knative,static_peak,oracle")


def test_a_table_without_any_file(run: Any) -> None:
    told = run(*DAY)
    assert told.code == 0
    assert "sample: 6.0 hours" in told.out
    assert "Whoever knew the future would pay for" in told.out
    rows = {line.split()[0]: line for line in told.out.splitlines() if line}
    assert "x oracle" in rows["policy"]
    assert "%" in rows["knative"]
    assert "USD" not in told.out


def test_the_same_for_scripts(run: Any) -> None:
    found = run(*DAY, "--usd-per-hour", "2", "--json").document
    assert [one["policy"] for one in found["runs"]] == ["knative", "static_peak", "oracle"]
    for one in found["runs"]:
        assert one["usd"] == pytest.approx(2 * one["replica_hours"])
        assert one["x_oracle"] == pytest.approx(one["replica_hours"] / found["oracle_replica_hours"])
        assert 0.9 < one["attainment"] <= 1.0
    assert found == run(*DAY, "--usd-per-hour", "2", "--json").document, "a seed gives the same traffic"
    assert found["requests"] != run(*DAY, "--seed", "2", "--json").document["requests"]


def test_recorded_rates_and_requests(run: Any, tmp_path: Path) -> None:
    rates = tmp_path / "rates.csv"
    rates.write_text("time_s,requests_per_s\n0,10\n3600,20\n")
    half = run(
        "gpu", "simulate", "--trace", rates, "--policy", "static_peak", "--scale", "0.5", "--json"
    ).document
    assert half["requests"] == pytest.approx(7.5 * 3600, rel=0.2)
    requests = tmp_path / "requests.jsonl"
    line = '{{"arrival_s": {}, "prompt_tokens": 100, "output_tokens": 10}}\n'
    requests.write_text("".join(line.format(k) for k in range(100)))
    words = ("gpu", "simulate", "--trace", requests, "--policy", "knative", "--json")
    assert run(*words).document["requests"] == 100
    assert run(*words, "--days", "0.0005").document["requests"] == 44
    told = run(*words, "--scale", "2")
    assert told.code == 2
    assert "--scale is for rates" in told.err


def test_spot_replicas_that_are_lost(run: Any) -> None:
    spot = ("--usd-per-hour", "4", "--spot-usd-per-hour", "1", "--spot-share", "0.5", "--spot-loss", "3.5=2")
    told = run(*DAY, *spot)
    assert "lost" in told.out
    found = run(*DAY, *spot, "--json").document["runs"]
    assert found[0]["lost"] == 2
    assert 1.0 < found[1]["usd"] / found[1]["replica_hours"] < 4.0


def test_spot_replicas_without_prices_cost_nothing_that_is_said(run: Any) -> None:
    spot = ("--spot-share", "0.5", "--spot-loss", "3.5=2")
    told = run(*DAY, *spot)
    assert "lost" in told.out
    assert "USD" not in told.out
    assert run(*DAY, *spot, "--json").document["runs"][0]["usd"] is None


def test_frontiers(run: Any) -> None:
    told = run("gpu", "simulate", "--days", "0.2", "--policy", "hpa", "--frontier")
    assert told.code == 0
    assert len([line for line in told.out.splitlines() if "%" in line]) > 5
    words = ("gpu", "simulate", "--days", "0.2", "--policy", "hpa", "--frontier", "--json")
    assert run(*words).document["frontiers"][0]["points"][0]["usd"] is None


def test_a_picture(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert run(*DAY, "--plot", tmp_path / "p.png").code == 0
    first = (tmp_path / "p.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    assert run(*DAY, "--plot", tmp_path / "p", "--usd-per-hour", "3").code == 0
    svg = (tmp_path / "p.svg").read_text()
    assert "<svg" in svg
    assert run(*DAY, "--plot", tmp_path / "p.png").code == 0
    assert (tmp_path / "p.png").read_bytes() == first
    nothing = tmp_path / "one.jsonl"
    nothing.write_text('{"arrival_s": 0, "prompt_tokens": 1, "output_tokens": 1}\n')
    words = ("gpu", "simulate", "--trace", nothing, "--policy", "knative", "--plot", tmp_path / "q.png")
    assert run(*words).code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--policy", "kubernetes"), "knative"),
        (("--policy", ""), "no policy is called"),
        (("--trace", "missing.csv"), "cannot be read"),
        (("--plot", "x.pdf"), "cannot draw"),
        (("--frontier", "--plot", "x.png"), "too many runs"),
        (("--patience", "0.5"), "--patience"),
        (("--spot-loss", "1=1"), "--spot-share"),
        (("--spot-usd-per-hour", "1"), "--spot-share"),
        (("--usd-per-hour", "1", "--spot-share", "0.5"), "both prices"),
        (("--spot-share", "0.5", "--spot-loss", "1:1"), "--spot-loss 30.5=4"),
        (("--spot-share", "0.5", "--spot-loss", "nan=1"), "losses must be times"),
        (("--days", "500"), "up to 400 days"),
        (("--cold-start", "nan"), "no finite number"),
        (("--target", "1.5"), "range"),
        (("--scale", "1e300", "--trace", "{rates}"), "simulation takes 100,000,000"),
        (("--scale", "5e6", "--trace", "{rates}"), "--scale 0.1"),
        (("--decode", "1e-9", "--days", "0.01"), "a simulation takes 100,000"),
        (("--cold-start", "1e12", "--days", "0.01"), "longer than a day"),
        (("--trace", "missing.csv"), "`sample`"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Any, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    rates = tmp_path / "rates.csv"
    rates.write_text("time_s,requests_per_s\n0,5\n600,5\n")
    outcome = run("gpu", "simulate", *(word.format(rates=rates) for word in words))
    assert outcome.code == 2
    assert told in outcome.err
    assert outcome.out == ""
