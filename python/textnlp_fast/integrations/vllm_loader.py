"""vLLM engines that load their weights straight from a repository (`load_format="textnlp"`).

    write_small_files("textnlp://org/model@1.2.0", "model", repository="s3://bucket/models")
    vllm serve model --load-format textnlp
        --model-loader-extra-config '{"url": "textnlp://org/model@1.2.0", "repository": "s3://bucket/models"}'

Configuration and tokenizer are read from the directory, where vLLM wants them; weights are decoded in memory, some at
a time, verified, and never written. Every rank reads all of them and keeps its part, as with vLLM's own loaders.

vLLM finds `register` by its entry point `vllm.general_plugins`. Written to the interface of vLLM's own loaders
(`BaseModelLoader`: `download_model`, `load_weights`) as their source has it; it was tested with a stand-in for that,
and never in vLLM.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.integrations.local_versions import small_files_of
from textnlp_fast.integrations.urls import Place, is_model_url, open_repository, parse_model_url
from textnlp_fast.loading import LoadCache, load
from textnlp_fast.storage.repository import Repository

__all__ = ["LOAD_FORMAT", "register", "stream_weights", "write_small_files"]

LOAD_FORMAT: Final = "textnlp"
DEFAULT_BATCH_BYTES: Final = 1 << 30
_OPTIONS: Final = frozenset({"url", "repository", "cache", "batch_bytes"})
_registered: list[type] = []


def register() -> None:
    """Tells vLLM of the load format; vLLM calls this in every process, some of them several times."""
    from vllm.model_executor.model_loader import (  # noqa: PLC0415  (only where it runs)
        BaseModelLoader,
        register_model_loader,
    )

    if not _registered:
        _registered.append(type("TextnlpModelLoader", (_Loading, BaseModelLoader), {}))
        register_model_loader(LOAD_FORMAT)(_registered[0])


def write_small_files(url: str, folder: str | os.PathLike[str], *, repository: Place | None = None) -> Path:
    """Writes what vLLM reads besides weights, configuration and tokenizer, into a new directory.

    Raises InvalidInputError if there is something, and what reading a version does.
    """
    parsed = parse_model_url(url)
    opened = open_repository(parsed, repository)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    if any(place.iterdir()):
        raise InvalidInputError(f"{place} is not empty", hint="Name a new directory.")
    return small_files_of(opened, opened.trusted_manifest(parsed.name, parsed.selector), place)


def stream_weights(
    opened: Repository,
    name: str,
    version: str | None = None,
    *,
    batch_bytes: int = DEFAULT_BATCH_BYTES,
    cache: LoadCache | None = None,
) -> Iterator[tuple[str, Any]]:
    """A version's tensors as torch's, by name, each verified, in the order of the files.

    While the caller uses some the next are made: memory is that of twice `batch_bytes`, or of the two largest
    tensors.
    """
    batches: list[list[str]] = []
    size = 0
    stored = opened.tensors(name, version)
    for tensor in stored.read():
        if not batches or size + tensor.info.size_bytes > batch_bytes:
            batches.append([])
            size = 0
        batches[-1].append(tensor.info.name)
        size += tensor.info.size_bytes
    exact = stored.manifest.version

    def make(names: list[str]) -> dict[str, Any]:
        return load(name, exact, repository=opened, names=names, framework="torch", cache=cache)

    with ThreadPoolExecutor(1, thread_name_prefix="textnlp-fast-weights") as pool:
        coming: Future[dict[str, Any]] | None = pool.submit(make, batches[0]) if batches else None
        for following in [*batches[1:], None]:
            assert coming is not None
            tensors = coming.result()
            coming = pool.submit(make, following) if following is not None else None
            yield from tensors.items()
            tensors.clear()


class _Loading:
    """What of vLLM's loader is ours."""

    load_config: Any

    def __init__(self, load_config: Any) -> None:
        super().__init__(load_config)  # type: ignore[call-arg]
        extra = dict(load_config.model_loader_extra_config or {})
        unknown = sorted(extra.keys() - _OPTIONS)
        if unknown:
            raise InvalidInputError(
                f"model_loader_extra_config has {', '.join(unknown)}",
                hint=f"{LOAD_FORMAT} knows {', '.join(sorted(_OPTIONS))}.",
            )
        self._url: str | None = extra.get("url")
        self._repository: str | None = extra.get("repository")
        self._cache = LoadCache(extra["cache"]) if extra.get("cache") else None
        self._batch_bytes = int(extra.get("batch_bytes", DEFAULT_BATCH_BYTES))

    def download_model(self, model_config: Any) -> None:
        """Nothing is downloaded: raises what the load would if there is no such version."""
        opened, name, version = self._version(model_config)
        opened.trusted_manifest(name, version)

    def load_weights(self, model: Any, model_config: Any) -> None:
        """Hands all weights to the model's own `load_weights`, and misses those that it says were not among them."""
        if list(getattr(model, "secondary_weights", None) or ()):
            raise InvalidInputError(
                f"{type(model).__name__} takes weights from several places", hint="Use another load format."
            )
        opened, name, version = self._version(model_config)
        wanted = {parameter for parameter, _ in model.named_parameters()}
        weights = stream_weights(opened, name, version, batch_bytes=self._batch_bytes, cache=self._cache)
        loaded = model.load_weights(weights)
        # As vLLM's default loader: models that do not say what they loaded, and quantised ones, are not asked.
        if (
            getattr(model_config, "quantization", None) is None
            and loaded is not None
            and wanted - set(loaded)
        ):
            missing = ", ".join(sorted(wanted - set(loaded))[:10])
            raise InvalidInputError(f"{name}@{version} has no weights for {missing}")

    def _version(self, model_config: Any) -> tuple[Repository, str, str]:
        url = self._url or next(
            (
                value
                for value in (getattr(model_config, "model_weights", None), model_config.model)
                if is_model_url(value)
            ),
            None,
        )
        if url is None:
            raise InvalidInputError(
                "it is not said which version's weights are meant",
                hint='Pass --model-loader-extra-config \'{"url": "textnlp://name@1.0.0"}\'.',
            )
        parsed = parse_model_url(url)
        opened = open_repository(parsed, self._repository)
        return opened, *opened.resolve(parsed.reference)
