"""Lineage: kept in manifests, walked through versions, refused where it would be a circle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from registry.conftest import Publish, write_model
from textnlp_fast.errors import CorruptDataError, InvalidInputError, VersionNotFoundError
from textnlp_fast.storage import Lineage, ModelRegistry, Registry, Repository
from textnlp_fast.storage.manifest import serialize_manifest
from textnlp_fast.storage.registry.lineage import exact_lineage, lineage_of, walk

DIGEST = "sha256:" + "0123456789abcdef" * 4


def push(repository: Repository, folder: Path, name: str, version: str, lineage: Lineage) -> None:
    metadata = exact_lineage(repository, name, version, lineage).metadata()
    repository.push(write_model(folder / "m.safetensors"), name, version, parent=None, metadata=metadata)


def test_ancestors_are_listed_once_and_nearest_first(repository: Repository, tmp_path: Path) -> None:
    push(repository, tmp_path, "base", "1.0.0", Lineage(base_model="https://example.org/llama"))
    push(repository, tmp_path, "lora", "1.0.0", Lineage(base_model="base@1.0.0", training_run="run/7"))
    merged = Lineage(base_model="base@1.0.0", adapter="lora@latest", dataset_digest=DIGEST)
    push(repository, tmp_path, "tuned", "1.0.0", merged)
    push(repository, tmp_path, "tuned", "1.1.0", Lineage(parent="tuned@1.0.0"))
    assert [(each.depth, each.relation, str(each), each.of) for each in walk(repository, "tuned")] == [
        (0, "", "tuned@1.1.0", ""),
        (1, "parent", "tuned@1.0.0", "tuned@1.1.0"),
        (2, "base_model", "base@1.0.0", "tuned@1.0.0"),
        (2, "adapter", "lora@1.0.0", "tuned@1.0.0"),
        (3, "base_model", "https://example.org/llama", "base@1.0.0"),
    ]
    assert lineage_of(repository.manifest("tuned", "1.0.0")).dataset_digest == DIGEST


def test_a_parent_that_nobody_names_is_the_version_before(repository: Repository, publish: Publish) -> None:
    publish("m", "1.0.0", "1.1.0")
    assert [str(each) for each in walk(repository, "m")] == ["m@1.1.0", "m@1.0.0"]


def test_what_is_not_there_cannot_be_an_ancestor(repository: Repository, publish: Publish) -> None:
    publish("m", "1.0.0")
    with pytest.raises(VersionNotFoundError, match="no version 9") as caught:
        exact_lineage(repository, "m", "1.1.0", Lineage(base_model="m@9.0.0"))
    assert "URL" in caught.value.hint
    elsewhere = exact_lineage(
        repository, "m", "1.1.0", Lineage(base_model="meta/llama", adapter="s3://a@b/c")
    )
    assert elsewhere.metadata() == {"lineage.base_model": "meta/llama", "lineage.adapter": "s3://a@b/c"}


def forge(repository: Repository, version: str, **lineage: str) -> None:
    """A manifest as somebody who can write to the bucket might leave it."""
    manifest = repository.manifest("m", version)
    forged = {f"lineage.{key}": value for key, value in lineage.items()}
    repository.store.put_object(
        f"models/m/versions/{version}.json", serialize_manifest(replace(manifest, metadata=forged))
    )


def test_a_circle_is_refused_wherever_it_begins(repository: Repository, publish: Publish) -> None:
    publish("m", "1.0.0", "1.1.0", "1.2.0", parent=None)
    forge(repository, "1.0.0", base_model="m@1.1.0")
    forge(repository, "1.1.0", adapter="m@1.0.0")
    forge(repository, "1.2.0", parent="m@1.0.0")
    fresh = Repository(repository.store)
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        with pytest.raises(CorruptDataError, match=r"runs in a circle, through m@1"):
            walk(fresh, "m", version)
    with pytest.raises(CorruptDataError, match="circle"):
        exact_lineage(fresh, "m", "2.0.0", Lineage(base_model="m@1.2.0"))


def test_a_version_cannot_be_its_own_ancestor(repository: Repository, publish: Publish) -> None:
    publish("m", "1.0.0", "1.1.0", parent=None)
    forge(repository, "1.0.0", base_model="m@2.0.0")
    fresh = Repository(repository.store)
    with pytest.raises(InvalidInputError, match="comes from m@2"):
        exact_lineage(fresh, "m", "2.0.0", Lineage(base_model="m@1.0.0"))


def test_a_long_chain_and_a_gap_are_walked(repository: Repository, publish: Publish) -> None:
    versions = [f"1.{number}.0" for number in range(60)]
    publish("m", *versions, parent=None)
    for version, before in zip(versions[1:], versions, strict=False):
        forge(repository, version, parent=f"m@{before}")
    repository.store.delete("models/m/versions/1.30.0.json")
    ancestors = walk(Repository(repository.store), "m")
    assert [each.version for each in ancestors] == versions[:29:-1]


@pytest.mark.parametrize(
    "lineage",
    [
        {"base_model": ""},
        {"training_run": "a\nb"},
        {"parent": "x" * 501},
        {"dataset_digest": "abc"},
        {"dataset_digest": "sha256:xyz"},
    ],
)
def test_odd_lineages_are_refused(repository: Repository, publish: Publish, lineage: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError):
        Lineage(**lineage)  # type: ignore[arg-type]
    publish("m", "1.0.0")
    forge(repository, "1.0.0", **lineage)
    with pytest.raises(CorruptDataError, match="lineage of"):
        walk(Repository(repository.store), "m")


async def test_the_registry_publishes_and_walks_it(registry: Registry, tmp_path: Path) -> None:
    models = ModelRegistry(registry.repository)
    published = await models.publish_model(
        write_model(tmp_path / "t.safetensors", 3),
        "t",
        "1.0.0",
        lineage=Lineage(base_model="m@latest"),
    )
    assert published.lineage.base_model == "m@2.0.0"
    ancestors = [str(each) for each in await models.lineage("t")]
    assert ancestors[:2] == ["t@1.0.0", "m@2.0.0"]
