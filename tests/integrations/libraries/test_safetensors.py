"""safetensors' functions on URLs, held against the package's own on the same bytes."""

from __future__ import annotations

import inspect
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta.models import files_of, models, write
from integrations.libraries.conftest import Shelf
from textnlp_fast.errors import InvalidInputError, VersionExistsError
from textnlp_fast.integrations.safetensors import numpy as ours_numpy
from textnlp_fast.integrations.safetensors import safe_open
from textnlp_fast.storage import Repository

theirs: Any = pytest.importorskip("safetensors")
theirs_numpy: Any = pytest.importorskip("safetensors.numpy")
torch: Any = pytest.importorskip("torch")
theirs_torch: Any = pytest.importorskip("safetensors.torch")
from textnlp_fast.integrations.safetensors import torch as ours_torch  # noqa: E402

ONE = "textnlp://org/tiny@1.1.0/model-00001.safetensors"


def same(one: Any, other: Any) -> bool:
    """Whether two tensors are the same, bit for bit."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if isinstance(one, np.ndarray):
        return one.tobytes() == other.tobytes()
    one, other = (each.contiguous().reshape(-1).view(torch.uint8) for each in (one, other))
    return bool(torch.equal(one, other))


@pytest.mark.parametrize("framework", ["pt", "np"])
def test_a_file_of_a_version_is_that_file(shelf: Shelf, framework: str) -> None:
    local = shelf.sources["1.1.0"] / "model-00001.safetensors"
    with (
        safe_open(ONE, framework, repository=shelf.path) as mine,
        theirs.safe_open(local, framework) as other,
    ):
        assert mine.keys() == other.keys()
        assert mine.offset_keys() == other.offset_keys()
        assert mine.metadata() == other.metadata()
        for name in mine.keys():  # noqa: SIM118  (it is no dict)
            assert same(mine.get_tensor(name), other.get_tensor(name))
        one, two = mine.get_slice("layers.0.q.weight"), other.get_slice("layers.0.q.weight")
        whole = other.get_tensor("layers.0.q.weight")
        assert one.get_shape() == two.get_shape() and one.get_dtype() == two.get_dtype()
        for index in (
            np.s_[:],
            np.s_[3:7],
            np.s_[3:60:5],
            np.s_[-4:],
            np.s_[10:4],
            np.s_[:, ::8],
            np.s_[5:9, 100:],
            np.s_[7],
            np.s_[-1, 3:5],
            np.s_[..., 2],
        ):
            assert same(one[index], whole[index]), index


@given(model=models(), data=st.data())
@settings(max_examples=10)
def test_every_element_type(model: dict[str, Any], data: st.DataObject) -> None:
    names = [path for path in model if path.endswith(".safetensors")]
    if not names:
        return
    path = data.draw(st.sampled_from(names))
    with TemporaryDirectory() as folder:
        source = write(model, Path(folder, "source"))
        repository = Repository.open(Path(folder, "repo"), create=True)
        repository.push(source, "m", "1.0.0")
        mine = ours_torch.load_file(f"textnlp://m@1.0.0/{path}", repository=repository)
        other = theirs_torch.load_file(source / path)
        assert mine.keys() == other.keys()
        assert all(same(mine[name], other[name]) for name in mine)


def test_a_version_is_all_of_its_files(shelf: Shelf) -> None:
    merged: dict[str, Any] = {}
    for path in sorted(shelf.sources["1.0.0"].glob("*.safetensors")):
        merged |= theirs_torch.load_file(path)
    mine = ours_torch.load_file("textnlp://org/tiny@champion", repository=shelf.repository)
    assert mine.keys() == merged.keys()
    assert all(same(mine[name], merged[name]) for name in mine)


def test_paths_are_theirs(shelf: Shelf, tmp_path: Path) -> None:
    path = shelf.sources["1.0.0"] / "model-00002.safetensors"
    tensors = ours_torch.load_file(path)
    assert same(tensors["layers.1.q.weight"], theirs_torch.load_file(path)["layers.1.q.weight"])
    ours_torch.save_file(tensors, tmp_path / "one", {"format": "pt"})
    theirs_torch.save_file(tensors, tmp_path / "two", {"format": "pt"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with safe_open(path, "np") as opened:
        assert type(opened).__module__ != "textnlp_fast.integrations.safetensors.opening"
    ours_numpy.save_file({"a": np.arange(3)}, tmp_path / "three")
    assert ours_numpy.load_file(tmp_path / "three")["a"].tolist() == [0, 1, 2]


def test_parameters_are_theirs() -> None:
    for mine, other in (
        (ours_torch.load_file, theirs_torch.load_file),
        (ours_torch.save_file, theirs_torch.save_file),
        (ours_numpy.load_file, theirs_numpy.load_file),
        (ours_numpy.save_file, theirs_numpy.save_file),
    ):
        own, found = (inspect.signature(each).parameters for each in (mine, other))
        for name, parameter in found.items():
            if name in own:
                assert (own[name].kind, own[name].default) == (parameter.kind, parameter.default)
            else:  # an older one has fewer
                raise AssertionError(name)
        assert all(own[name].kind is inspect.Parameter.KEYWORD_ONLY for name in own.keys() - found.keys())


@pytest.mark.parametrize("framework", ["torch", "numpy"])
def test_a_file_is_saved_as_a_version(tmp_path: Path, framework: str) -> None:
    module, other = (ours_torch, theirs_torch) if framework == "torch" else (ours_numpy, theirs_numpy)
    values = np.arange(300, dtype=np.float32).reshape(3, 100)
    tensors = {"w": torch.from_numpy(values) if framework == "torch" else values}
    repository = str(tmp_path / "repo")
    url = "textnlp://org/new@1.0.0"
    module.save_file(tensors, url, {"format": "pt"}, repository=repository, message="first")
    module.save_file(tensors, url, {"format": "pt"}, repository=repository)
    assert same(module.load_file(url, repository=repository)["w"], tensors["w"])
    with safe_open(url, "pt", repository=repository) as opened:
        assert opened.metadata() == {"format": "pt"}
    other.save_file(tensors, tmp_path / "local", {"format": "pt"})
    pulled = Repository.open(repository).files("org/new", "1.0.0")
    assert pulled.manifest.message == "first"
    assert pulled.read("model.safetensors") == (tmp_path / "local").read_bytes()
    with pytest.raises(VersionExistsError):
        module.save_file({"w": tensors["w"][:1]}, url, repository=repository)
    module.save_file(tensors, "textnlp://org/new@1.1.0/part/w.safetensors", repository=repository)
    assert list(Repository.open(repository).files("org/new", "1.1.0").entries) == ["part/w.safetensors"]


@pytest.mark.parametrize("url", ["textnlp://m", "textnlp://m@champion", "textnlp://m@stage:production"])
def test_what_is_saved_has_a_version(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidInputError, match="which version"):
        ours_numpy.save_file({"a": np.zeros(1)}, url, repository=str(tmp_path / "repo"))
    assert not (tmp_path / "repo").exists()


def test_what_is_refused(shelf: Shelf) -> None:
    with safe_open(ONE, "pt", repository=shelf.path) as opened:
        for call in (
            lambda: opened.get_tensor("none"),
            lambda: opened.get_slice("none"),
            lambda: opened.get_slice("norm.weight")[::-1],
        ):
            with pytest.raises(InvalidInputError):
                call()
        with pytest.raises(IndexError):
            opened.get_slice("norm.weight")[1]
    for url, framework, device in (
        (ONE, "flax", "cpu"),
        (ONE, "np", "cuda"),
        ("textnlp://org/tiny@1.1.0/config.json", "np", "cpu"),
        ("textnlp://org/tiny@1.1.0/none.safetensors", "np", "cpu"),
    ):
        with pytest.raises(InvalidInputError):
            safe_open(url, framework, device, repository=shelf.path)


def test_the_same_tensor_twice_asks_for_a_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "m").mkdir(exist_ok=True)
        theirs_numpy.save_file({"w": np.zeros(2)}, tmp_path / "m" / f"{name}.safetensors")
    repository = Repository.open(tmp_path / "repo", create=True)
    repository.push(tmp_path / "m", "m", "1.0.0")
    with pytest.raises(InvalidInputError, match="two tensors"):
        safe_open("textnlp://m", "np", repository=repository)
    assert ours_numpy.load_file("textnlp://m@latest/a.safetensors", repository=repository)["w"].size == 2


def test_bytes_of_a_file_are_those_of_the_version(shelf: Shelf) -> None:
    content = files_of(shelf.models["1.1.0"])["model-00001.safetensors"]
    tensors = ours_torch.load_file(ONE, repository=shelf.path)
    assert same(tensors["norm.weight"], theirs_torch.load(content)["norm.weight"])
