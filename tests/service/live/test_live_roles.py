"""Who may what of the live side, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.storage import Repository

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

WAIT_S = 180.0


def test_roles(tmp_path: Path, serve: Callable[..., str], write_model: Any) -> None:
    from textnlp_fast.service.auth.principals import Role  # noqa: PLC0415
    from textnlp_fast.service.auth.tokens import new_token  # noqa: PLC0415

    (tmp_path / "root").mkdir()
    model = write_model(tmp_path / "root" / "one", 1)
    Repository.open(tmp_path / "repository", create=True)
    tokens = {
        role: new_token(tmp_path / "tokens.yaml", role.word, role)
        for role in (Role.SCRAPE, Role.READER, Role.PUBLISHER, Role.OPERATOR)
    }
    address = serve(
        repo=str(tmp_path / "repository"),
        allowed_paths=[str(tmp_path / "root")],
        tokens=str(tmp_path / "tokens.yaml"),
    )
    reads = (
        "/transfers",
        "/transfers/roots",
        "/fleet/instances",
        "/fleet/costs",
        "/fleet/health",
        "/autoscaler",
    )

    def status(role: Role | None, method: str, path: str, body: Any = None) -> int:
        headers = {"Authorization": f"Bearer {tokens[role]}"} if role is not None else {}
        answer = httpx.request(method, f"{address}/api/v1{path}", json=body, headers=headers, timeout=WAIT_S)
        return int(answer.status_code)

    for path in (*reads, "/events"):
        assert status(None, "GET", path) == 401
        assert status(Role.SCRAPE, "GET", path) == 403
    for path in reads:
        assert status(Role.READER, "GET", path) == 200
    job, collection = (
        {"kind": "push", "path": str(model), "model": "m", "version": "1.0.0"},
        {"kind": "collect"},
    )
    assert status(None, "POST", "/transfers", job) == 401
    assert status(Role.READER, "POST", "/transfers", job) == 403
    assert status(Role.PUBLISHER, "POST", "/transfers", job) == 202
    assert status(Role.PUBLISHER, "POST", "/transfers", collection) == 403
    assert status(Role.OPERATOR, "POST", "/transfers", collection) == 202
    assert status(Role.READER, "POST", f"/transfers/{'0' * 24}/cancel") == 403
