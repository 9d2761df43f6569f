"""MLflow lists, downloads and logs versions through its own functions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from delta.models import files_of, tree
from integrations.libraries.conftest import Shelf
from textnlp_fast.integrations.urls import REPOSITORY_VARIABLE
from textnlp_fast.storage import Repository

mlflow: Any = pytest.importorskip("mlflow")
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.store.artifact import artifact_repository_registry  # noqa: E402

from textnlp_fast.integrations.mlflow import TextnlpArtifactRepository  # noqa: E402


@pytest.fixture(autouse=True)
def known(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(REPOSITORY_VARIABLE, shelf.path)
    registry = artifact_repository_registry._artifact_repository_registry
    before = dict(registry._registry)
    registry.register("textnlp", TextnlpArtifactRepository)
    yield
    registry._registry = before


def test_a_version_is_downloaded(shelf: Shelf, tmp_path: Path) -> None:
    uri = "textnlp://org/tiny@1.1.0"
    (tmp_path / "out").mkdir()
    place = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(tmp_path / "out"))
    assert tree(Path(place)) == files_of(shelf.models["1.1.0"])
    (tmp_path / "one").mkdir()
    place = mlflow.artifacts.download_artifacts(
        artifact_uri=f"textnlp://org/tiny@champion/tokenizer/vocab.txt?repo={shelf.path}",
        dst_path=str(tmp_path / "one"),
    )
    assert Path(place).read_bytes() == b"one\ntwo\n"


def test_parts_of_a_version(shelf: Shelf, tmp_path: Path) -> None:
    store = TextnlpArtifactRepository("textnlp://org/tiny@champion")
    listed = [(each.path, each.is_dir, each.file_size) for each in store.list_artifacts()]
    sizes = {path: len(content) for path, content in files_of(shelf.models["1.0.0"]).items()}
    assert listed == [
        *[(path, False, sizes[path]) for path in sorted(sizes) if "/" not in path],
        ("tokenizer", True, None),
    ]
    assert [each.path for each in store.list_artifacts("tokenizer")] == [
        "tokenizer/more",
        "tokenizer/vocab.txt",
    ]
    assert store.list_artifacts("config.json") == []
    below = TextnlpArtifactRepository("textnlp://org/tiny@champion/tokenizer")
    assert [each.path for each in below.list_artifacts()] == ["more", "vocab.txt"]
    (tmp_path / "out").mkdir()
    place = Path(below.download_artifacts("more", str(tmp_path / "out")))
    assert tree(place) == {"merges.txt": b"o n\n"}
    place = Path(below.download_artifacts("vocab.txt", str(tmp_path / "out")))
    assert place.read_bytes() == b"one\ntwo\n"


def test_a_directory_is_logged_as_a_version(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REPOSITORY_VARIABLE, str(tmp_path / "repo"))
    mlflow_store = artifact_repository_registry.get_artifact_repository("textnlp://logged@1.0.0")
    mlflow_store.log_artifacts(str(shelf.sources["1.0.0"]), "model")
    mlflow_store.log_artifacts(str(shelf.sources["1.0.0"]), "model")
    files = Repository.open(tmp_path / "repo").files("logged", "1.0.0")
    assert sorted(files.entries) == sorted(f"model/{path}" for path in shelf.models["1.0.0"])
    assert [each.path for each in mlflow_store.list_artifacts()] == ["model"]
    with pytest.raises(MlflowException, match="other files"):
        mlflow_store.log_artifacts(str(shelf.sources["1.1.0"]), "model")
    with pytest.raises(MlflowException, match="one push"):
        mlflow_store.log_artifact(str(shelf.sources["1.0.0"] / "config.json"))
    with pytest.raises(MlflowException, match="never changes"):
        mlflow_store.delete_artifacts()
    with pytest.raises(MlflowException, match="which version"):
        TextnlpArtifactRepository("textnlp://logged").log_artifacts(str(shelf.sources["1.0.0"]))


@pytest.mark.parametrize(
    "call",
    [
        lambda: TextnlpArtifactRepository("textnlp://../m@1.0.0"),
        lambda: TextnlpArtifactRepository("textnlp://../m").list_artifacts(),
        lambda: TextnlpArtifactRepository("textnlp://org/").list_artifacts(),
        lambda: TextnlpArtifactRepository("textnlp://org/tiny@9.0.0").list_artifacts(),
        lambda: TextnlpArtifactRepository("textnlp://none@1.0.0").list_artifacts(),
        lambda: TextnlpArtifactRepository("textnlp://org/tiny@1.0.0").list_artifacts("none"),
        lambda: TextnlpArtifactRepository("textnlp://org/tiny@1.0.0").download_artifacts("none"),
        lambda: TextnlpArtifactRepository("textnlp://org/tiny@1.0.0").download_artifacts("../../etc/passwd"),
    ],
)
def test_errors_are_mlflows(call: Any) -> None:
    with pytest.raises(MlflowException):
        call()
