"""Publishing through the registry, as the async face offers it."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from registry.conftest import write_model
from textnlp_fast.errors import (
    InvalidInputError,
    NotAllowedError,
    RepositoryNotFoundError,
    StorageUnavailableError,
    VersionExistsError,
)
from textnlp_fast.objectstore import open_store
from textnlp_fast.storage import (
    ModelRegistry,
    Registry,
    Repository,
    StorageConfig,
    UnifiedModelStorage,
    VersionManager,
)
from textnlp_fast.storage.registry import registry as registry_module
from textnlp_fast.storage.registry.publishing import publish_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model.safetensors")


@pytest.mark.parametrize("kind", ["version manager", "repository", "unified storage"])
async def test_the_first_publication_makes_the_repository(model: Path, kind: str) -> None:
    name = uuid.uuid4().hex
    store = open_store(f"memory://{name}")
    version_manager = {
        "version manager": lambda: VersionManager(store),
        "repository": lambda: Repository(store),
        "unified storage": lambda: UnifiedModelStorage(StorageConfig(provider="memory", bucket_name=name)),
    }[kind]()
    published = await ModelRegistry(version_manager).publish_model(
        model_path=model, name="gpt2-custom", version="1.0.0", architecture="transformer", created_by="user"
    )
    assert (published.stage, published.created_by, published.architecture) == ("draft", "user", "transformer")
    manifest = Repository(store).manifest("gpt2-custom")
    assert manifest.metadata == {"created_by": "user", "architecture": "transformer"}
    history = await ModelRegistry(version_manager).history("gpt2-custom")
    assert [change.action for change in history] == ["publish"]


async def test_a_registry_of_nothing_says_that_there_is_no_repository() -> None:
    with pytest.raises(RepositoryNotFoundError):
        await ModelRegistry(VersionManager(open_store(f"memory://{uuid.uuid4().hex}"))).move_to_stage(
            "m", "1.0.0", "staging"
        )
    with pytest.raises(InvalidInputError, match="not on str"):
        ModelRegistry("a place")  # type: ignore[arg-type]


def test_stage_tags_and_aliases_come_in_one_change(registry: Registry, model: Path) -> None:
    published = publish_model(
        registry, model, "n", "1.0.0", stage="staging", tags={"team": "nlp"}, aliases=["canary", "next"]
    )
    assert (published.stage, published.aliases) == ("staging", ("canary", "next"))
    history = list(registry.history("n"))
    assert len({change.id for change in history}) == 1
    assert [change.action for change in history] == ["alias.set", "alias.set", "stage", "tag.set", "publish"]


def test_publishing_again_changes_nothing(registry: Registry, model: Path) -> None:
    for _ in range(2):
        publish_model(registry, model, "n", "1.0.0", stage="staging", aliases=["canary"])
    assert registry.references("n").revision == 3
    assert publish_model(registry, model, "n", "1.0.0").push.already_there


def test_other_files_under_the_same_version_are_refused(registry: Registry, model: Path) -> None:
    publish_model(registry, model, "n", "1.0.0")
    other = write_model(model.with_name("other.safetensors"), 1)
    with pytest.raises(VersionExistsError):
        publish_model(registry, other, "n", "1.0.0", stage="staging")
    assert registry.references("n").stage_of("1.0.0") == "draft"


def test_what_would_be_refused_is_refused_before_anything_is_uploaded(
    registry: Registry, model: Path
) -> None:
    objects = [meta.key for meta in registry.repository.store.list()]
    for wrong in (
        {"stage": "production"},
        {"tags": {"a b": ""}},
        {"aliases": ["1"]},
        {"metadata": {"build": "x"}},
    ):
        with pytest.raises(InvalidInputError):
            publish_model(registry, model, "n", "1.0.0", **wrong)  # type: ignore[arg-type]
    registry.set_alias("m", "live", "1.0.0", protect=True)
    with pytest.raises(NotAllowedError):
        publish_model(registry, model, "m", "3.0.0", aliases=["live"])
    fresh = [meta.key for meta in registry.repository.store.list() if not meta.key.startswith("audit/")]
    assert set(fresh) - set(objects) == {"models/m/refs.json"}


def test_a_publication_that_breaks_off_after_the_push_is_finished_by_the_next(
    registry: Registry, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object, **__: object) -> None:
        raise StorageUnavailableError("the store is down")

    with monkeypatch.context() as patch:
        patch.setattr(registry_module, "change_references", down)
        with pytest.raises(StorageUnavailableError, match=r"n@1\.0\.0 is published; publish it again"):
            publish_model(registry, model, "n", "1.0.0", stage="staging")
    published = publish_model(registry, model, "n", "1.0.0", stage="staging")
    assert (published.stage, published.push.already_there) == ("staging", True)
    assert [change.action for change in registry.history("n")] == ["stage", "publish"]
