"""The worked example of the format is real, and the guide's Python runs."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from delta.models import Tensor, nudged, write
from textnlp_fast.delta import apply_patch, create_patch

DOCS = Path(__file__).resolve().parents[2] / "docs"

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="no docs beside these tests")


def test_the_worked_example(tmp_path: Path) -> None:
    text = (DOCS / "format.md").read_text(encoding="utf-8")
    *_, frame = re.findall(r"```hex\n(.*?)```", text, re.DOTALL)
    head, index = re.findall(r"# Patch example\n.*?```\n(.*?)```.*?```json\n(.*?)```", text, re.DOTALL)[0]
    canonical = json.dumps(json.loads(index), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    written = bytes.fromhex(head) + canonical.encode() + bytes.fromhex(frame)
    old = Tensor("U8", (256,), bytes([7]) * 256)
    new = Tensor("U8", (256,), old.data[:40] + bytes([9]) + old.data[41:])
    places = []
    for name, tensor in (("old", old), ("new", new)):
        header = b'{"w":{"dtype":"U8","shape":[256],"data_offsets":[0,256]}}'
        places.append(tmp_path / f"{name}.safetensors")
        places[-1].write_bytes(len(header).to_bytes(8, "little") + header + tensor.data)
    create_patch(*places, tmp_path / "p", source_version="1.0.0", target_version="1.1.0")
    assert (tmp_path / "p").read_bytes() == written
    (tmp_path / "written").write_bytes(written)
    apply_patch(tmp_path / "written", places[0], tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == places[1].read_bytes()


def test_the_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = Tensor("BF16", (64, 8), bytes(range(256)) * 4)
    for name, tensor in (("v1.0", weights), ("v1.1", nudged(weights, 1))):
        write({"m": {"layers.0.q_proj.weight": tensor}}, tmp_path / f"{name}.safetensors")
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "guide" / "patches.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    asyncio.run(names["release"]())
    assert names["some"].shape == (16, 8)
    wanted = (tmp_path / "v1.1.safetensors").read_bytes()
    assert (tmp_path / "again.safetensors").read_bytes() == wanted
    assert (tmp_path / "1.0.0-to-1.1.0.tnpatch").is_file()
    assert "layers.0.q_proj.weight content" in capsys.readouterr().out
