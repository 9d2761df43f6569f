"""vLLM's load format, in a stand-in with the signatures of vLLM's own source: `BaseModelLoader` and the registry."""

from __future__ import annotations

import sys
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from delta.models import files_of, tree
from integrations.libraries.conftest import Shelf
from loading.loads import bytes_of
from textnlp_fast.errors import InvalidInputError, VersionNotFoundError
from textnlp_fast.integrations import vllm_loader
from textnlp_fast.integrations.vllm_loader import register, stream_weights, write_small_files

torch: Any = pytest.importorskip("torch")


class BaseModelLoader(ABC):
    """As `vllm/model_executor/model_loader/base_loader.py` has it, without what devices and quantisation add."""

    def __init__(self, load_config: Any) -> None:
        self.load_config = load_config

    @abstractmethod
    def download_model(self, model_config: Any) -> None: ...

    @abstractmethod
    def load_weights(self, model: Any, model_config: Any) -> None: ...

    def load_model(self, vllm_config: Any, model_config: Any, prefix: str = "") -> Any:
        model = model_config.make()
        self.load_weights(model, model_config)
        return model.eval()


@pytest.fixture
def formats(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, type]]:
    """The registry of load formats."""
    known: dict[str, type] = {}

    def register_model_loader(load_format: str) -> Callable[[type], type]:
        def wrapper(loader: type) -> type:
            assert load_format not in known, "vLLM warns of it"
            if not issubclass(loader, BaseModelLoader):
                raise ValueError("The model loader must be a subclass of `BaseModelLoader`.")
            known[load_format] = loader
            return loader

        return wrapper

    module = types.ModuleType("vllm.model_executor.model_loader")
    module.BaseModelLoader = BaseModelLoader  # type: ignore[attr-defined]
    module.register_model_loader = register_model_loader  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.model_executor", types.ModuleType("vllm.model_executor"))
    monkeypatch.setitem(sys.modules, "vllm.model_executor.model_loader", module)
    monkeypatch.setattr(vllm_loader, "_registered", [])
    register()
    register()
    yield known


class Model(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Loads by name, a weight at a time, as vLLM's models do."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], *, tells: bool = True) -> None:
        super().__init__()
        self.tells = tells
        self.names = {name.replace(".", "_"): name for name in shapes}
        for name, shape in shapes.items():
            self.register_parameter(
                name.replace(".", "_"),
                torch.nn.Parameter(torch.zeros(shape, dtype=torch.bfloat16), requires_grad=False),
            )

    def named_parameters(self, *args: Any, **options: Any) -> Any:
        for name, parameter in super().named_parameters(*args, **options):
            yield self.names[name], parameter

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> set[str] | None:
        own = dict(self.named_parameters())
        loaded = set()
        for name, tensor in weights:
            if name in own:
                own[name].copy_(tensor)
                loaded.add(name)
        return loaded if self.tells else None


SHAPES = {"layers.0.q.weight": (64, 128), "layers.1.q.weight": (64, 128), "norm.weight": (1, 128)}


def config(model: str = "folder", shapes: dict[str, tuple[int, ...]] = SHAPES, **more: Any) -> Any:
    return types.SimpleNamespace(
        model=model, revision=None, quantization=None, make=lambda: Model(shapes), **more
    )


def loader(formats: dict[str, type], **extra: Any) -> Any:
    return formats["textnlp"](types.SimpleNamespace(model_loader_extra_config=extra))


def test_an_engine_gets_the_weights(formats: dict[str, type], shelf: Shelf) -> None:
    made = loader(formats, url="textnlp://org/tiny@1.1.0", repository=shelf.path, batch_bytes=1 << 14)
    made.download_model(config())
    model = made.load_model(None, config())
    expected = {
        name: tensor.data
        for content in shelf.models["1.1.0"].values()
        if isinstance(content, dict)
        for name, tensor in content.items()
    }
    assert {name: bytes_of(each) for name, each in model.named_parameters()} == expected


def test_the_url_may_be_the_models_name(formats: dict[str, type], shelf: Shelf) -> None:
    for where in ({"model": "textnlp://org/tiny"}, {"model_weights": "textnlp://org/tiny"}):
        model = loader(formats, repository=shelf.path).load_model(None, config(**where))
        assert float(model.names and next(iter(model.parameters())).abs().sum()) > 0


def test_what_is_refused(formats: dict[str, type], shelf: Shelf) -> None:
    with pytest.raises(InvalidInputError, match="concurrency"):
        loader(formats, concurrency=4)
    with pytest.raises(InvalidInputError, match="which version"):
        loader(formats, repository=shelf.path).download_model(config())
    with pytest.raises(VersionNotFoundError):
        loader(formats, url="textnlp://org/tiny@9.0.0", repository=shelf.path).download_model(config())
    more = {**SHAPES, "lm_head.weight": (2, 2)}
    made = loader(formats, url="textnlp://org/tiny", repository=shelf.path)
    with pytest.raises(InvalidInputError, match=r"lm_head\.weight"):
        made.load_model(None, config(shapes=more))
    silent = Model(more, tells=False)
    made.load_weights(silent, config())
    quantised = config()
    quantised.quantization = "fp8"
    made.load_weights(Model(more), quantised)
    several = Model(SHAPES)
    several.secondary_weights = ["other"]
    with pytest.raises(InvalidInputError, match="several places"):
        made.load_weights(several, config())


def test_weights_come_some_at_a_time(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    load = vllm_loader.load

    def noted(*args: Any, **options: Any) -> Any:
        tensors = load(*args, **options)
        sizes.append(sum(tensor.nbytes for tensor in tensors.values()))
        return tensors

    monkeypatch.setattr(vllm_loader, "load", noted)
    names = [name for name, _ in stream_weights(shelf.repository, "org/tiny", batch_bytes=20_000)]
    assert sorted(names) == sorted(SHAPES)
    assert len(sizes) == 2 and max(sizes) <= 20_000
    weights = stream_weights(shelf.repository, "org/tiny", batch_bytes=1)
    next(weights)
    weights.close()  # a model that stops early ends it


def test_small_files(shelf: Shelf, tmp_path: Path) -> None:
    place = write_small_files("textnlp://org/tiny", tmp_path / "m", repository=shelf.path)
    content = files_of(shelf.models["1.1.0"])
    assert tree(place) == {path: data for path, data in content.items() if not path.endswith(".safetensors")}
    with pytest.raises(InvalidInputError, match="not empty"):
        write_small_files("textnlp://org/tiny", tmp_path / "m", repository=shelf.path)
