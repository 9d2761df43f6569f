"""What a page must be for everybody. The reckoning is `auditing.js`, in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).with_suffix(".js").read_text()


def contrast_wrongs(page: Any) -> list[str]:
    """Texts below 4.5:1 (large ones below 3:1), lines of pictures and edges of controls below 3:1."""
    found = _ask(page, "contrast")
    assert found["seen"] > 20, "hardly anything was looked at"
    return list(found["wrongs"])


def structure_wrongs(page: Any) -> list[str]:
    """Names, roles, landmarks, headings, tables, lists."""
    return list(_ask(page, "structure"))


def focus_of(page: Any) -> dict[str, Any]:
    """What has the focus: `tag`, `role`, `name`, `inside` the page's content; whether that can be `seen`."""
    return dict(_ask(page, "focus"))


def _ask(page: Any, what: str) -> Any:
    return page.evaluate(f"(() => {{ {_SCRIPT}\n return {what}(); }})()")
