"""Patches of format 1, made once and committed, apply for ever.

`make_old_patch.py` beside this file made them; nobody has a reason to run that again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from delta.models import tree
from textnlp_fast.delta import apply_patch, inspect_patch, read_patch

VECTORS = Path(__file__).parents[1] / "vectors" / "patch"


def digests(root: Path) -> dict[str, str]:
    return {path: hashlib.sha256(data).hexdigest() for path, data in tree(root).items()}


def test_old_patches_apply(tmp_path: Path) -> None:
    expected = json.loads((VECTORS / "expected.json").read_text(encoding="utf-8"))
    apply_patch(VECTORS / "one.tnpatch", VECTORS / "source", tmp_path / "one")
    assert digests(tmp_path / "one") == expected["one"]
    apply_patch(VECTORS / "two.tnpatch", tmp_path / "one", tmp_path / "two")
    assert digests(tmp_path / "two") == expected["two"]
    apply_patch(VECTORS / "both.tnpatch", VECTORS / "source", tmp_path / "both")
    assert digests(tmp_path / "both") == expected["both"]


def test_they_have_what_there_is_to_keep() -> None:
    """Else keeping them proves little."""
    kinds = {row.recipe for row in inspect_patch(VECTORS / "one.tnpatch").tensors}
    assert {"content", "pieces", "transpose", "cast", "alone"} <= kinds
    both = read_patch(VECTORS / "both.tnpatch").patch
    assert both.contents.keys() - both.target.parts().keys()
    assert both.metadata == {"größe": "1"}
