"""The same service over a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from textnlp_fast.objectstore import open_store
from textnlp_fast.service import ServiceConfig
from textnlp_fast.storage import Registry, Repository

NAME = "org/tiny"


async def test_it_reads_and_changes_a_bucket(
    moto: Any, aws_environment: None, tmp_path: Path, serving: Any, start: Any, fill: Any
) -> None:
    url = f"s3://{moto.make_bucket()}/models"
    repository: Repository = fill(url, tmp_path / "weights", endpoint_url=moto.endpoint_url)
    async with serving(url, endpoint_url=moto.endpoint_url, fresh_s=3600, stale_s=3600) as client:
        rows = (await client.get("/api/v1/models")).json()["items"]
        assert [row["name"] for row in rows] == [NAME, "other"]
        answer = await client.put(f"/api/v1/models/{NAME}/aliases/canary", json={"version": "latest"})
        assert answer.json() == {"alias": "canary", "version": "1.1.0", "protected": False}
        rows = (await client.get("/api/v1/models")).json()["items"]
        assert rows[0]["aliases"]["canary"] == "1.1.0"
        found = await client.get(f"/api/v1/models/{NAME}/diff", params={"from": "1.0.0", "to": "canary"})
        assert found.json()["summary"]["changed_tensors"] == 2
        audit = (await client.get("/api/v1/audit?limit=1")).json()["items"]
        assert audit[0]["verb"] == "alias.set"
        missing = await client.get(f"/api/v1/models/{NAME}/versions/9.9.9")
        assert missing.status_code == 404 and url not in missing.text
    assert Registry(repository, actor="x").references(NAME).aliases["canary"].version == "1.1.0"
    # A process of its own finds it by the same settings as every command.
    service = start("--repo", url, TEXTNLP_FAST_ENDPOINT_URL=moto.endpoint_url)
    async with httpx.AsyncClient(timeout=60) as client:
        ready = await client.get(f"{service.address}/readyz")
    assert ready.json() == {"ready": True, "detail": "2 models"}
    assert service.end() == 0
    assert open_store(url, endpoint_url=moto.endpoint_url).exists("repository.json")
    assert ServiceConfig(repo=url).repo == url
