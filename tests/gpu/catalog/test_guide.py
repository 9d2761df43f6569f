"""The guide to the catalogue: its examples run, its tables are complete, its numbers are those of the data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from textnlp_fast.cli.gpu.catalog.show import command as show
from textnlp_fast.gpu import Catalog
from textnlp_fast.gpu.catalog.catalog import MAX_AGE_DAYS, SPOT_MAX_AGE_DAYS
from textnlp_fast.gpu.catalog.refresh import PROVIDERS
from textnlp_fast.gpu.catalog.refresh.vetting import LEAST_USD_PER_GPU, MOST_USD_PER_GPU

GUIDE = (Path(__file__).resolve().parents[3] / "docs/guide/gpu-catalog.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def nothing_refreshed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GPU_CATALOG", "CONFIG", "ENV_FILE"):
        monkeypatch.delenv(f"TEXTNLP_FAST_{name}", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert blocks
    scope: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "gpu-catalog.md", "exec"), scope)
    assert "aws" not in capsys.readouterr().err


def test_the_commands_run() -> None:
    commands = re.findall(r"^textnlp-fast gpu catalog show (.*)$", GUIDE, re.MULTILINE)
    assert len(commands) == 3
    for arguments in commands:
        done = CliRunner().invoke(show, arguments.split())
        assert done.exit_code == 0, done.output
        assert "No offer" not in done.output


def test_every_column_is_explained() -> None:
    rows = json.loads(CliRunner().invoke(show, ["--json", "--limit", "1"]).output)
    assert {f"`{name}`" for name in rows[0]} == set(re.findall(r"^\|[^|]*\| (`\w+`) \|", GUIDE, re.MULTILINE))
    header = CliRunner().invoke(show, ["--limit", "400", "--gpu", "t4"]).output.splitlines()[0]
    shown = set(re.findall(r"^\| ([^|`]+) \| `", GUIDE, re.MULTILINE)) - {" "}
    assert set(re.split(r"\s{2,}", header.strip())) | {"zone"} == {name.strip() for name in shown}


def test_numbers_are_those_of_the_data() -> None:
    catalog = Catalog.load()
    regions = {(name, region) for name in catalog.providers for region in catalog.regions(name)}
    machines = len(catalog.instance_types())
    assert (
        f"{len(catalog.gpus)} types of GPUs, {machines} types of machines in {len(regions)} regions" in GUIDE
    )
    assert f"on demand older than {MAX_AGE_DAYS} days, spot older than {SPOT_MAX_AGE_DAYS}" in GUIDE
    assert f"below {LEAST_USD_PER_GPU:g} or above {MOST_USD_PER_GPU:g} USD" in GUIDE
    assert all(f"\n| {name} |" in GUIDE for name in PROVIDERS)
    old = [one for one in catalog.offers() if one.as_of.year < 2026]
    assert f"{len(old)} of AWS of 2024" in GUIDE
    assert {(one.instance_type.provider, str(one.market)) for one in old} == {("aws", "on-demand")}
    assert not catalog.offers(providers="azure", markets="spot")
    assert {str(one.market) for one in catalog.offers(instance_types="p5e.48xlarge")} == {"spot"}
