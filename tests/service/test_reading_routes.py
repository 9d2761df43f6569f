"""What the reading routes answer, held against the repository itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.storage import Registry, Repository
from textnlp_fast.storage.explain import total_of
from textnlp_fast.storage.version_manager import VersionManager

API = "/api/v1"
NAME = "org/tiny"
Serving = Any


@pytest.fixture
async def client(filled: Path, serving: Serving) -> Any:
    async with serving(filled) as client:
        yield client


async def get(client: Any, path: str, **query: Any) -> Any:
    answer = await client.get(API + path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_models_are_those_of_the_repository(client: Any, filled: Path) -> None:
    repository = Repository.open(filled)
    rows = {row["name"]: row for row in (await get(client, "/models"))["items"]}
    assert list(rows) == list(repository.models())
    for name, row in rows.items():
        log = repository.log(name)
        assert row["versions"] == len(log)
        assert row["stored_bytes"] == sum(each.stored_bytes for each in log)
        assert row["logical_bytes"] == sum(each.raw_bytes for each in log)
    assert rows[NAME]["latest"] == "1.1.0"  # the highest that is no pre-release
    assert rows[NAME]["stages"] == {"draft": "2.0.0-rc.1", "staging": "1.1.0"}
    assert rows[NAME]["aliases"] == {"champion": "1.1.0"}
    assert rows[NAME]["tags"] == {"owner": "alice"}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"q": "TIN"}, [NAME]),
        ({"q": "nothing"}, []),
        ({"stage": "staging"}, [NAME]),
        ({"stage": "production"}, []),
        ({"tag": "team"}, [NAME]),
        ({"tag": "team=nlp"}, [NAME]),
        ({"tag": "team=vision"}, []),
        ({"tag": "owner=alice", "q": "other"}, []),
    ],
)
async def test_models_are_filtered(client: Any, query: dict[str, str], names: list[str]) -> None:
    assert [row["name"] for row in (await get(client, "/models", **query))["items"]] == names


@pytest.mark.parametrize(
    "path", ["/models", f"/models/{NAME}/versions", f"/models/{NAME}/versions/1.0.0/tensors",
             f"/models/{NAME}/changes", "/audit"]
)  # fmt: skip
async def test_pages_are_the_list_cut_in_pieces(client: Any, path: str) -> None:
    whole = (await get(client, path, limit=1000))["items"]
    assert len(whole) > 1
    for limit in (1, 2):
        found: list[Any] = []
        cursor: dict[str, str] = {}
        for _ in range(len(whole) + 1):
            page = await get(client, path, limit=limit, **cursor)
            assert len(page["items"]) <= limit
            found += page["items"]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert found == whole


async def test_versions_say_what_manifest_and_references_say(client: Any, filled: Path) -> None:
    repository = Repository.open(filled)
    references = Registry(repository, actor="x").references(NAME)
    rows = (await get(client, f"/models/{NAME}/versions"))["items"]
    assert [row["version"] for row in rows] == repository.versions(NAME)[::-1]
    for row in rows:
        manifest = repository.manifest(NAME, row["version"])
        assert row["logical_bytes"] == manifest.raw_bytes
        assert row["stored_bytes"] == manifest.stored_bytes
        assert row["note"] == manifest.message
        assert row["created_at"] == manifest.created_at
        assert row["files"] == len(manifest.files)
        assert row["stage"] == references.stage_of(row["version"])
        assert row["aliases"] == references.aliases_of(row["version"])
        assert row["targets"] == references.targets_of(row["version"])
        assert row["problem"] is None and row["signed"] is False
    pinned = {row["version"]: row["pin_reason"] for row in rows if row["pinned"]}
    assert pinned == {"1.0.0": "the paper's"}


@pytest.mark.parametrize(
    ("selector", "version"),
    [("1.0.0", "1.0.0"), ("champion", "1.1.0"), ("stage:staging", "1.1.0"), ("latest", "1.1.0")],
)
async def test_a_version_is_found_by_all_its_names(client: Any, selector: str, version: str) -> None:
    found = await get(client, f"/models/{NAME}/versions/{selector}")
    assert found["version"] == version
    assert found["card"].strip() == f"# Tiny, of seed {['1.0.0', '1.1.0'].index(version)}"
    assert found["card_metadata"] == {"license": "mit"}
    assert {file["path"] for file in found["files"]} == {"README.md", "model.safetensors"}


async def test_lineage_and_graph_cross_models(client: Any) -> None:
    found = await get(client, "/models/other/versions/0.1.0")
    assert [(each["name"], each["relation"]) for each in found["lineage"]][:2] == [
        ("other", ""),
        (NAME, "parent"),
    ]
    graph = await get(client, "/models/other/graph")
    assert graph["external"] == [f"{NAME}@1.0.0"]
    assert {(edge["from"], edge["to"], edge["kind"]) for edge in graph["edges"]} == {
        (f"{NAME}@1.0.0", "0.1.0", "parent"),
        (f"{NAME}@1.0.0", "0.1.0", "base"),
    }
    own = await get(client, f"/models/{NAME}/graph")
    assert {("1.0.0", "1.1.0", "parent"), ("1.1.0", "2.0.0-rc.1", "parent")} <= {
        (edge["from"], edge["to"], edge["kind"]) for edge in own["edges"]
    }


async def test_tensors_are_those_of_the_manifest(client: Any, filled: Path) -> None:
    repository = Repository.open(filled)
    manifest = repository.manifest(NAME, "1.1.0")
    rows = (await get(client, f"/models/{NAME}/versions/1.1.0/tensors"))["items"]
    entry = next(entry for entry in manifest.files if entry.kind == "safetensors")
    assert [row["name"] for row in rows] == list(entry.names)
    for row, digest in zip(rows, entry.parts[1:], strict=True):
        content = manifest.contents[digest]
        assert (row["dtype"], row["shape"], row["size_bytes"]) == ("BF16", [16, 32], content.size)
        assert row["stored_bytes"] == content.coded_bytes
        assert (row["coding"] == "delta") == (row["base"] is not None) == (row["depth"] > 0)
    assert {row["coding"] for row in rows if "layers.1" in row["name"]} == {"delta"}


async def test_the_heat_map_adds_up_to_the_explanation(client: Any, filled: Path) -> None:
    repository = Repository.open(filled)
    found = await get(client, f"/models/{NAME}/diff", **{"from": "1.0.0", "to": "champion"})
    total = total_of(repository.explain(NAME, "1.0.0", "1.1.0", with_rank=False))
    summary = found["summary"]
    assert (summary["old"], summary["new"]) == (f"{NAME}@1.0.0", f"{NAME}@1.1.0")
    assert summary["changed_tensors"] == total.changed_tensors == 2
    assert summary["changed_fraction"] == pytest.approx(total.sums.changed_fraction)
    assert summary["norm"] == pytest.approx(total.sums.change_norm)
    assert [each["name"] for each in found["layers"]] == ["embedding", "layer 0", "layer 1", "norm"]
    assert [each["name"] for each in found["parts"]] == ["embedding", "attention", "mlp", "norm"]
    for key, groups in (("layer", "layers"), ("part", "parts")):
        for group in found[groups]:
            inside = [cell for cell in found["cells"] if cell[key] == group["name"]]
            assert sum(cell["logical_bytes"] for cell in inside) == group["logical_bytes"]
            assert sum(cell["tensors"] for cell in inside) == group["tensors"]
            assert sum((cell["norm"] or 0) ** 2 for cell in inside) == pytest.approx(
                (group["norm"] or 0) ** 2
            )
    changed = {(cell["layer"], cell["part"]) for cell in found["cells"] if cell["changed_fraction"]}
    assert changed == {("layer 1", "attention"), ("layer 1", "mlp")}
    assert {row["layer"] for row in found["tensors"]} == {"layer 1"}


async def test_a_heat_map_is_made_once_for_all_who_ask(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, ...]] = []
    explain = Repository.explain

    def counted(self: Repository, *arguments: str, **named: Any) -> Any:
        made.append(arguments)
        return explain(self, *arguments, **named)

    monkeypatch.setattr(Repository, "explain", counted)
    query = {"from": "1.1.0", "to": "2.0.0-rc.1"}
    answers = await asyncio.gather(*(get(client, f"/models/{NAME}/diff", **query) for _ in range(8)))
    assert all(each == answers[0] for each in answers)
    assert await get(client, f"/models/{NAME}/diff", **query) == answers[0]
    assert len(made) == 1


async def test_deployments_and_their_history(client: Any) -> None:
    rows = (await get(client, "/deployments"))["items"]
    assert [(row["model"], row["target"], row["version"]) for row in rows] == [
        (NAME, "eu/serving-1", "1.1.0")
    ]
    assert (rows[0]["previous"], rows[0]["state"], rows[0]["note"]) == (["1.0.0"], "healthy", "faster")
    history = (await get(client, f"/models/{NAME}/deployments/eu/serving-1/history"))["items"]
    assert [(row["kind"], row["version"]) for row in history] == [("deploy", "1.1.0"), ("deploy", "1.0.0")]


async def test_storage_adds_up(client: Any, filled: Path) -> None:
    found = await get(client, "/storage")
    repository = Repository.open(filled)
    manifests = [
        repository.manifest(name, version)
        for name, versions in repository.models().items()
        for version in versions
    ]
    assert found["versions"] == len(manifests)
    assert found["stored_bytes"] == sum(each.stored_bytes for each in manifests)
    assert found["saved_bytes"] == found["logical_bytes"] - found["stored_bytes"] > 0
    sizes = [(point["at"], point["stored_bytes"]) for point in found["points"]]
    assert sizes == sorted(sizes)
    assert found["points"][-1]["stored_bytes"] == found["stored_bytes"]
    assert len((await get(client, "/storage", points=2))["points"]) == 2


async def test_an_answer_that_is_known_already_is_not_sent_again(client: Any) -> None:
    first = await client.get(f"{API}/models/{NAME}/versions")
    etag = first.headers["ETag"]
    again = await client.get(f"{API}/models/{NAME}/versions", headers={"If-None-Match": f'"x", {etag}'})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    other = await client.get(f"{API}/models/{NAME}/versions", headers={"If-None-Match": '"x"'})
    assert other.content == first.content


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/models/nobody/versions", 404, "ModelNotFound"),
        (f"/models/{NAME}/versions/9.9.9", 404, "VersionNotFound"),
        (f"/models/{NAME}/versions/nobody", 404, "VersionNotFound"),
        (f"/models/{NAME}/versions/stage:none", 404, "VersionNotFound"),
        (f"/models/{NAME}/versions/1.0", 422, "InvalidInput"),
        ("/models/..%2f..%2fetc/versions", 422, "InvalidInput"),
        ("/models/a%00b/versions", 422, "InvalidInput"),
        (f"/models/{NAME}/versions?cursor=9.9.9", 422, "InvalidInput"),
        (f"/models/{NAME}/versions?limit=1001", 422, "InvalidInput"),
        (f"/models/{NAME}/changes?cursor=x", 422, "InvalidInput"),
        (f"/models/{NAME}/diff?from=1.0.0", 422, "InvalidInput"),
        (f"/models/{NAME}/diff?from=1.0.0&to=9.9.9", 404, "VersionNotFound"),
        ("/nothing", 404, "NotFound"),
    ],
)
async def test_what_is_not_there_is_a_problem(client: Any, path: str, status: int, code: str) -> None:
    answer = await client.get(API + path)
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"].startswith("urn:textnlp-fast:problem:") and problem["detail"]


async def test_a_harmed_manifest_harms_no_list(own: Repository, serving: Serving, tmp_path: Path) -> None:
    path = tmp_path / "repository" / "models" / NAME / "versions" / "1.0.0.json"
    path.write_bytes(path.read_bytes().replace(b"number 0", b"number 1"))
    async with serving(own.url) as client:
        rows = {row["version"]: row for row in (await get(client, f"/models/{NAME}/versions"))["items"]}
        assert rows["1.0.0"]["problem"] and rows["1.0.0"]["logical_bytes"] == 0
        assert rows["1.1.0"]["problem"] is None
        answer = await client.get(f"{API}/models/{NAME}/versions/1.0.0")
        assert answer.status_code == 500
        assert answer.json()["code"] in ("DigestMismatch", "CorruptData")
        assert str(tmp_path) not in answer.text


async def test_manifests_that_are_kept_are_bounded(filled: Path) -> None:
    from textnlp_fast.service.reading.manifests import BoundedVersionManager  # noqa: PLC0415

    repository = Repository.open(filled)
    plain = VersionManager(repository.store)
    most_bytes = 60_000
    bounded = BoundedVersionManager(repository.store, most_bytes)
    for _ in range(3):
        for version in repository.versions(NAME):
            assert bounded.manifest(NAME, version) == plain.manifest(NAME, version)
            assert bounded.kept_bytes <= most_bytes
    assert bounded.kept_bytes > 0
