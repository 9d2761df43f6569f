"""`gpu recommend`, as people and scripts call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

CONFIG = Path(__file__).parents[1] / "gpu" / "recommender" / "configs" / "Meta-Llama-3.1-8B.json"
SERVE = ("gpu", "recommend", "--model", CONFIG, "--rps", "40", "--prompt", "2000", "--output", "300")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEFAULT_GPU_TYPE", "ENABLE_SPOT_INSTANCES"):
        monkeypatch.delenv(name, raising=False)


def test_a_table_of_plans_and_the_reasons_of_the_rest(run: Any) -> None:
    told = run(*SERVE)
    assert told.code == 0
    assert "8.0B parameters in bf16, 40 requests/s of 2000 + 300 tokens" in told.out
    assert "USD/Mtok: a million tokens, of prompts and answers together" in told.out
    assert "Not these:" in told.out
    assert "nvidia-p100: compute capability 6.0" in told.out


def test_the_same_for_scripts(run: Any) -> None:
    found = run(*SERVE, "--json", "--region", "us-east-1", "--provider", "aws", "--limit", "3").document
    assert len(found["plans"]) == 3
    prices = [plan["usd_per_hour"] for plan in found["plans"]]
    assert prices == sorted(prices)
    bought = found["plans"][0]["machines_of"][0]
    assert (bought["provider"], bought["region"], bought["market"]) == ("aws", "us-east-1", "on-demand")
    assert found["plans"][0]["capacity_per_s"] >= 40
    assert found["model"]["parameters"] == 8_030_261_248


def test_a_mixed_fleet_a_batch_and_a_run(run: Any) -> None:
    pytest.importorskip("scipy")
    mixed = run(
        *SERVE, "--json", "--mixed", "--max-share", "0.6", "--machine-limit", "g6e.48xlarge=1"
    ).document
    assert len(mixed["plans"][0]["machines_of"]) > 1
    batch = ("gpu", "recommend", "--model", CONFIG, "--requests", "100000", "--deadline-h", "4", "--json")
    assert all(plan["hours"] <= 4 for plan in run(*batch).document["plans"])
    tuned = run(
        "gpu", "recommend", "--model", CONFIG, "--train-tokens", "1e8", "--method", "lora", "--json"
    ).document
    assert tuned["plans"][0]["usd"] > 0
    assert "USD" in run(*batch[:-1]).out


def test_a_picture(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert run(*SERVE, "--plot", tmp_path / "p.png").code == 0
    first = (tmp_path / "p.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    assert run(*SERVE, "--plot", tmp_path / "p").code == 0
    assert (tmp_path / "p.png").read_bytes() == first
    assert b"b200" in (tmp_path / "p.svg").read_bytes() or b"<svg" in (tmp_path / "p.svg").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--model", CONFIG), 2, "what the machines are for"),
        (("--model", CONFIG, "--rps", "1", "--requests", "5"), 2, "what the machines are for"),
        (("--rps", "1"), 2, "which model"),
        (("--params", "8e9", "--rps", "0"), 2, "requests_per_s"),
        (("--params", "nan", "--rps", "1"), 2, "no finite number"),
        (("--params", "1", "--rps", "1"), 2, "cannot be sized"),
        (("--params", "8e9", "--rps", "1", "--gpu", "h1000"), 2, "h1000"),
        (("--params", "8e9", "--rps", "1", "--region", "us-east-7"), 2, "us-east-7"),
        (("--params", "8e9", "--rps", "1", "--ttft", "0.0001"), 13, "first token after"),
        (("--params", "8e9", "--requests", "5"), 2, "by when"),
        (("--params", "8e9", "--rps", "5", "--mixed", "--machine-limit", "x"), 2, "is no limit"),
        (("--params", "8e9", "--requests", "5", "--deadline-h", "1", "--plot", "x.png"), 2, "can be drawn"),
        (("--params", "8e9", "--rps", "5", "--mixed", "--machine-limit", "foo=1"), 2, "no foo is on offer"),
        (("--params", "8e9", "--rps", "5", "--machine-limit", "g6.xlarge=1"), 2, "without --mixed"),
        (
            ("--params", "8e9", "--rps", "5", "--max-share", "1.0"),
            2,
            "--max-share means nothing without --mixed",
        ),
        (("--params", "8e9", "--rps", "5", "--deadline-h", "1"), 2, "without --requests or --train-tokens"),
        (("--params", "8e9", "--rps", "5", "--sequence", "4096"), 2, "--sequence means nothing"),
        (("--params", "8e9", "--rps", "5", "--max-usd", "9"), 2, "--max-usd means nothing"),
        (("--params", "8e9", "--requests", "5", "--deadline-h", "1", "--mixed"), 2, "--mixed means nothing"),
        (
            ("--params", "8e9", "--requests", "5", "--deadline-h", "1", "--ttft", "1"),
            2,
            "--ttft means nothing",
        ),
        (("--params", "8e9", "--train-tokens", "1e8", "--prompt", "5"), 2, "without --rps or --requests"),
        (("--model", "/nowhere/config.json", "--rps", "1"), 2, "cannot be read"),
    ],
)
def test_mistakes_are_told_with_what_to_do(run: Any, arguments: Any, code: int, said: str) -> None:
    told = run("gpu", "recommend", *arguments)
    assert told.code == code
    assert said in told.err


def test_a_hostile_config(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(CONFIG.read_text()), "torch_dtype": "\x1b[31mred"}))
    told = run("gpu", "recommend", "--model", file, "--rps", "1")
    assert told.code == 2
    assert "\x1b[31mred" not in told.err


def test_a_plan_that_fails_says_why_a_line_a_type(run: Any) -> None:
    told = run(*SERVE, "--tpot", "1e-9")
    assert (told.code, told.out) == (13, "")
    lines = told.err.splitlines()
    assert lines[0] == "Not these:"
    error = lines.index("error: nothing on offer serves this workload")
    reasons = [line.strip().partition(": ") for line in lines[1:error]]
    assert len(reasons) > 10
    assert all(name.startswith("nvidia-") and why for name, _, why in reasons)
    assert not any(why.startswith(name) for name, _, why in reasons)
    assert lines[error + 1].startswith("hint:")
    assert "\\n" not in told.err
