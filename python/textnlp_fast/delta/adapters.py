"""LoRA adapters as the PEFT library saves them, read as a stranger's files and mapped to a model's tensors.

A directory holds ``adapter_config.json`` and ``adapter_model.safetensors``. Layout:
https://huggingface.co/docs/peft/developer_guides/checkpoint. A module ``m`` has ``base_model.model.m.lora_A.weight``
(rank x in) and ``...lora_B.weight`` (out x rank), and merging adds ``scale * B A`` to ``m.weight``, turned where
weights lie in x out (``fan_in_fan_out``). Embeddings have ``lora_embedding_A`` (rank x rows) and ``lora_embedding_B``
(columns x rank).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from textnlp_fast.delta.low_rank import FACTOR_DTYPES, MAX_RANK, Factors
from textnlp_fast.errors import InvalidInputError, UnsafeFileError, UnsupportedFormatError
from textnlp_fast.tensors import SafetensorsFile, TensorInfo, read_into

__all__ = ["Adapter", "AdapterConfig", "AdapterModule", "parse_config", "read_adapter"]

CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"
_MAX_CONFIG_BYTES: Final = 1 << 20
_PREFIX: Final = "base_model.model."
# Module, part, then "weight", the adapter's name, both or neither.
_KEY: Final = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<part>[AB])(?:\.[^.]+){0,2}")
_PLAIN_PATTERN: Final = re.compile(r"\^?[A-Za-z0-9_.\-]+")
_WORDS: Final = {"F32": np.uint32, "F16": np.uint16, "BF16": np.uint16, "I16": np.uint16, "I8": np.uint8}
_MERGED_HINT: Final = (
    "Leave the adapter out: the change is then found from the two models, or stored as it is."
)


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What a merge needs to know of ``adapter_config.json``. Patterns name modules by their last parts."""

    rank: int
    alpha: float
    rank_stabilised: bool
    fan_in_fan_out: bool
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]

    def rank_and_scale(self, module: str) -> tuple[int, float]:
        """Rank of a module's factors, and what their product is multiplied by."""
        keys = (*self.rank_pattern, *self.alpha_pattern)
        key = next((key for key in keys if _matches(key, module)), "")
        rank = self.rank_pattern.get(key, self.rank)
        alpha = self.alpha_pattern.get(key, self.alpha)
        return rank, alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


@dataclass(frozen=True, slots=True)
class AdapterModule:
    """One module's factors, still in the file. ``turned``: the product is transposed before it is added."""

    name: str
    a: TensorInfo
    b: TensorInfo
    scale: float
    turned: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the weight that a merge changes."""
        rows, columns = self.b.shape[0], self.a.shape[1]
        return (columns, rows) if self.turned else (rows, columns)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter whose names and shapes were checked. ``others``: tensors of its file that are no factors."""

    file: SafetensorsFile
    config: AdapterConfig
    modules: list[AdapterModule]
    others: list[str]

    def factors(self, module: AdapterModule) -> Factors:
        """Read a module's factors, as the weight lies: rows of B for its rows."""
        a, b = self._read(module.a), self._read(module.b)
        if module.turned:
            a, b = np.ascontiguousarray(b.T), np.ascontiguousarray(a.T)
        first, second = (module.b, module.a) if module.turned else (module.a, module.b)
        rows, columns = module.shape
        return Factors(
            rows,
            columns,
            module.a.shape[0],
            module.scale,
            a.tobytes(),
            b.tobytes(),
            first.dtype,
            second.dtype,
        )

    def match(self, tensors: Iterable[str]) -> dict[str, AdapterModule]:
        """The modules by the names of the model's tensors that they change.

        A name fits as it is, or as the one tensor that ends with it: adapters are saved with and without the name of
        the outer model. Raises :class:`InvalidInputError` if one fits none or several.
        """
        names = set(tensors)
        found: dict[str, AdapterModule] = {}
        for module in self.modules:
            wanted = f"{module.name}.weight"
            fitting = [wanted] if wanted in names else [name for name in names if _ends_alike(name, wanted)]
            if len(fitting) != 1 or fitting[0] in found:
                raise InvalidInputError(
                    f"the adapter's module {module.name!r} fits {len(fitting) or 'no'} tensors of the model",
                    hint="Check that the adapter was trained on this model.",
                )
            found[fitting[0]] = module
        return found

    def _read(self, tensor: TensorInfo) -> Any:
        data = bytearray(tensor.size_bytes)
        read_into(self.file.path, tensor.begin, data)
        return np.frombuffer(data, dtype=_WORDS[tensor.dtype]).reshape(tensor.shape)


def read_adapter(directory: str | os.PathLike[str]) -> Adapter:
    """Read an adapter's configuration and the header of its weights; the factors themselves when they are asked for.

    Raises :class:`InvalidInputError` for what is damaged, :class:`UnsafeFileError` where there are pickled weights
    only, and :class:`UnsupportedFormatError` for what is no plain LoRA: DoRA, trained biases, convolutions, other
    methods.
    """
    place = Path(directory)
    config_path = place / CONFIG_FILE
    try:
        with config_path.open("rb") as file:
            text = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(
            f"cannot read {config_path}: {error.strerror}",
            hint="Give the directory that PEFT saved the adapter in.",
        ) from error
    config = parse_config(text)
    weights = place / WEIGHTS_FILE
    if not weights.exists() and (place / "adapter_model.bin").exists():
        raise UnsafeFileError(f"{place} holds its weights as a pickle, adapter_model.bin")
    file_read = SafetensorsFile.open(weights)
    modules, others = _modules(file_read.tensors, config)
    return Adapter(file_read, config, modules, others)


# --- configuration ------------------------------------------------------------------------------------------


def parse_config(text: bytes) -> AdapterConfig:
    """Check the text of ``adapter_config.json``; raises as :func:`read_adapter` does."""
    if len(text) > _MAX_CONFIG_BYTES:
        raise InvalidInputError(f"{CONFIG_FILE} has more than {_MAX_CONFIG_BYTES} bytes")
    try:
        raw = json.loads(text.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{CONFIG_FILE} is not JSON: {str(error)[:80]}") from error
    if not isinstance(raw, dict):
        raise InvalidInputError(f"{CONFIG_FILE} is not a JSON object")
    kind = raw.get("peft_type", "LORA")
    if kind != "LORA":
        raise _unsupported(f"the adapter is of the type {str(kind)[:40]!r}, not LORA")
    for key, meaning in (
        ("use_dora", "DoRA"),
        ("lora_bias", "trained biases"),
        ("alora_invocation_tokens", "aLoRA"),
    ):
        if raw.get(key):
            raise _unsupported(f"the adapter uses {meaning} ({key!r}), which is more than a low-rank change")
    if raw.get("bias", "none") != "none":
        raise _unsupported("the adapter has trained biases ('bias'), which are more than a low-rank change")
    patterns = {key: _pattern(raw.get(key), key) for key in ("rank_pattern", "alpha_pattern")}
    return AdapterConfig(
        rank=_rank(raw.get("r"), "r"),
        alpha=_number(raw.get("lora_alpha"), "lora_alpha"),
        rank_stabilised=_flag(raw, "use_rslora"),
        fan_in_fan_out=_flag(raw, "fan_in_fan_out"),
        rank_pattern={key: _rank(value, key) for key, value in patterns["rank_pattern"].items()},
        alpha_pattern={key: _number(value, key) for key, value in patterns["alpha_pattern"].items()},
    )


def _unsupported(message: str) -> UnsupportedFormatError:
    return UnsupportedFormatError(message, hint=_MERGED_HINT)


def _rank(value: Any, key: str) -> int:
    if type(value) is not int or not 1 <= value <= MAX_RANK:
        raise InvalidInputError(f"{CONFIG_FILE}: {key[:40]!r} is no rank: {str(value)[:40]}")
    return value


def _number(value: Any, key: str) -> float:
    # Huge integers have no float; bool is an int to Python.
    if type(value) not in (int, float) or not abs(value) < 1e30:
        raise InvalidInputError(f"{CONFIG_FILE}: {key[:40]!r} is no number: {str(value)[:40]}")
    return float(value)


def _flag(raw: dict[str, Any], key: str) -> bool:
    value = raw.get(key)
    if value is not None and type(value) is not bool:
        raise InvalidInputError(f"{CONFIG_FILE}: {key!r} is neither true nor false")
    return bool(value)


def _pattern(value: Any, key: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInputError(f"{CONFIG_FILE}: {key!r} is not an object")
    for name in value:
        # A stranger's regular expression can take a lifetime to match.
        if not _PLAIN_PATTERN.fullmatch(name):
            raise _unsupported(f"{CONFIG_FILE}: {key!r} names modules by the expression {name[:40]!r}")
    return value


def _matches(pattern: str, module: str) -> bool:
    if pattern.startswith("^"):
        return module == pattern[1:]
    return _ends_alike(module, pattern)


def _ends_alike(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


# --- tensors ------------------------------------------------------------------------------------------------


def _modules(tensors: list[TensorInfo], config: AdapterConfig) -> tuple[list[AdapterModule], list[str]]:
    parts: dict[tuple[str, bool], dict[str, TensorInfo]] = {}
    others = []
    for tensor in tensors:
        if ".lora_magnitude_vector" in tensor.name:
            raise _unsupported(f"tensor {tensor.name[:80]!r} is a magnitude of DoRA")
        found = _KEY.fullmatch(tensor.name)
        if found is None:
            others.append(tensor.name)
            continue
        if tensor.name.endswith(".bias"):
            raise _unsupported(f"tensor {tensor.name[:80]!r} is a trained bias")
        sides = parts.setdefault((found["module"].removeprefix(_PREFIX), found["embedding"] is not None), {})
        if found["part"] in sides:
            raise InvalidInputError(
                f"two tensors claim to be lora_{found['part']} of {found['module'][:80]!r}"
            )
        sides[found["part"]] = tensor
    return [_module(name, embedding, sides, config) for (name, embedding), sides in parts.items()], others


def _module(name: str, embedding: bool, sides: dict[str, TensorInfo], config: AdapterConfig) -> AdapterModule:
    shown = name[:80]
    for part in "AB":
        if part not in sides:
            raise InvalidInputError(f"the adapter has no lora_{part} for its module {shown!r}")
        tensor = sides[part]
        if len(tensor.shape) != 2:
            raise _unsupported(f"tensor {tensor.name[:80]!r} has the shape {list(tensor.shape)}: no matrix")
        if tensor.dtype not in FACTOR_DTYPES:
            raise _unsupported(f"tensor {tensor.name[:80]!r} has the dtype {tensor.dtype}")
    a, b = sides["A"], sides["B"]
    rank, scale = config.rank_and_scale(name)
    if (a.shape[0], b.shape[1]) != (rank, rank) or 0 in (*a.shape, *b.shape):
        raise InvalidInputError(
            f"module {shown!r} has factors of {list(a.shape)} and {list(b.shape)}; the rank is to be {rank}"
        )
    return AdapterModule(name, a, b, scale, turned=embedding or config.fan_in_fan_out)
