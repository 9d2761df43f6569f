"""The layout holds every file under its digest, and other people's tools read it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from storage.sharding.shard_models import files_below, llama, write_model
from textnlp_fast.cli.program import group
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage import Repository
from textnlp_fast.storage.oci import export_oci
from textnlp_fast.storage.oci.layout import media_type_of, parameters_text


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    source = write_model(tmp_path / "source", llama(), files=2)
    (source / "README.md").write_text("# A model")
    (source / "copy.json").write_bytes((source / "tokenizer.json").read_bytes())
    (source / "empty.txt").touch()
    repository = Repository.open(tmp_path / "repository", create=True)
    repository.push(source, "org/tiny", "1.0.0", message="first")
    return repository


def blob(layout: Path, descriptor: dict[str, Any]) -> bytes:
    algorithm, _, digest = descriptor["digest"].partition(":")
    data = (layout / "blobs" / algorithm / digest).read_bytes()
    assert (hashlib.new(algorithm, data).hexdigest(), len(data)) == (digest, descriptor["size"])
    return data


def test_every_file_is_a_layer_under_its_digest(tmp_path: Path, repository: Repository) -> None:
    report = export_oci(repository, "org/tiny", None, tmp_path / "layout")
    layout = tmp_path / "layout"
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "1.0.0"}
    assert entry["digest"] == report.digest
    manifest = json.loads(blob(layout, entry))
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    files = {
        layer["annotations"]["org.cncf.model.filepath"]: blob(layout, layer) for layer in manifest["layers"]
    }
    assert files == files_below(tmp_path / "source")
    config = json.loads(blob(layout, manifest["config"]))
    assert config["modelfs"] == {
        "type": "layers",
        "diff_ids": [layer["digest"] for layer in manifest["layers"]],
    }
    assert config["descriptor"]["family"] == "llama"
    assert config["config"]["precision"] == "fp16"
    named = {layer["digest"].partition(":")[2] for layer in manifest["layers"]}
    named |= {each["digest"].partition(":")[2] for each in (entry, manifest["config"])}
    assert {path.name for path in (layout / "blobs" / "sha256").iterdir()} == named


def test_oras_takes_the_layout(tmp_path: Path, repository: Repository) -> None:
    oras = pytest.importorskip("oras.layout")
    report = export_oci(repository, "org/tiny", "1.0.0", tmp_path / "layout", tag="latest")
    layout = oras.Layout(str(tmp_path / "layout"))  # validates
    ordered = layout.get_ordered_blobs(tag="latest")
    assert ordered[-1] == report.digest
    assert all(layout.blob_exists(digest) for digest in ordered)


def test_the_same_version_gives_the_same_bytes(tmp_path: Path, repository: Repository) -> None:
    for name in ("a", "b"):
        export_oci(repository, "org/tiny", "1.0.0", tmp_path / name)
    assert files_below(tmp_path / "a") == files_below(tmp_path / "b")


def test_what_is_there_is_left_alone(tmp_path: Path, repository: Repository) -> None:
    (tmp_path / "layout").mkdir()
    (tmp_path / "layout" / "mine").write_text("mine")
    with pytest.raises(InvalidInputError, match="not empty"):
        export_oci(repository, "org/tiny", "1.0.0", tmp_path / "layout")
    with pytest.raises(InvalidInputError, match="no tag"):
        export_oci(repository, "org/tiny", "1.0.0", tmp_path / "other", tag="a/b")
    assert files_below(tmp_path / "layout") == {"mine": b"mine"}
    assert not (tmp_path / "other").exists()


def test_from_the_command_line(tmp_path: Path, repository: Repository) -> None:
    words = [
        "export-oci",
        "org/tiny",
        str(tmp_path / "layout"),
        "--repo",
        repository.url.removeprefix("file://"),
    ]
    result = CliRunner().invoke(group, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "sha256:" in result.output


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("model-00001-of-00002.safetensors", "weight"),
        ("sub/config.json", "weight.config"),
        ("chat_template.jinja", "weight.config"),
        ("README.md", "doc"),
        ("LICENSE", "doc"),
        ("modeling_x.py", "code"),
    ],
)
def test_kinds_of_layers(path: str, kind: str) -> None:
    assert media_type_of(path) == f"application/vnd.cncf.model.{kind}.v1.raw"


@pytest.mark.parametrize(
    ("count", "text"), [(6_738_415_616, "6.7b"), (8 * 10**9, "8b"), (124_439_808, "124.4m"), (900, "0.9k")]
)
def test_numbers_of_parameters(count: int, text: str) -> None:
    assert parameters_text(count) == text
