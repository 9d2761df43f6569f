"""Models for tests of sharding: files of safetensors with names that rules know, and an independent reading of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

Array = npt.NDArray[np.generic]
Model = dict[str, Array]

TYPES = (np.float32, np.float16, np.uint8, np.int64)


def llama(
    seed: int = 0,
    *,
    layers: int = 3,
    heads: int = 4,
    kv_heads: int = 2,
    head: int = 8,
    inner: int = 48,
    words: int = 40,
    dtype: type[np.generic] = np.float16,
    experts: int = 0,
) -> Model:
    """Random bits under the names of Llama, or of Mixtral with `experts`."""
    rng = np.random.default_rng(seed)
    hidden = heads * head

    def bits(*shape: int) -> Array:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(rng.bytes(size), dtype).reshape(shape)

    model: Model = {"model.embed_tokens.weight": bits(words, hidden), "model.norm.weight": bits(hidden)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        model[f"{at}.self_attn.q_proj.weight"] = bits(hidden, hidden)
        model[f"{at}.self_attn.q_proj.bias"] = bits(hidden)
        model[f"{at}.self_attn.k_proj.weight"] = bits(kv_heads * head, hidden)
        model[f"{at}.self_attn.v_proj.weight"] = bits(kv_heads * head, hidden)
        model[f"{at}.self_attn.o_proj.weight"] = bits(hidden, hidden)
        model[f"{at}.input_layernorm.weight"] = bits(hidden)
        for expert in range(experts):
            part = f"{at}.block_sparse_moe.experts.{expert}"
            model[f"{part}.w1.weight"] = bits(inner, hidden)
            model[f"{part}.w2.weight"] = bits(hidden, inner)
            model[f"{part}.w3.weight"] = bits(inner, hidden)
        if experts:
            model[f"{at}.block_sparse_moe.gate.weight"] = bits(experts, hidden)
        else:
            model[f"{at}.mlp.gate_proj.weight"] = bits(inner, hidden)
            model[f"{at}.mlp.up_proj.weight"] = bits(inner, hidden)
            model[f"{at}.mlp.down_proj.weight"] = bits(hidden, inner)
    model["lm_head.weight"] = bits(words, hidden)
    return model


def config_of(*, heads: int = 4, kv_heads: int = 2, **more: object) -> dict[str, object]:
    return {
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        **more,
    }


def write_model(
    folder: Path, model: Model, config: dict[str, object] | None = None, *, files: int = 1
) -> Path:
    """A directory: the tensors dealt out to `files`, a configuration, and a file that is neither."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(model)
    for number in range(files):
        name = "model.safetensors" if files == 1 else f"model-{number + 1:05}-of-{files:05}.safetensors"
        part = {each: np.ascontiguousarray(model[each]) for each in names[number::files]}
        save_file(part, folder / name, metadata={"format": "pt", "made": "here"})
    if files > 1:
        index = {
            "metadata": {"written by": "a test"},
            "weight_map": {
                each: f"model-{number % files + 1:05}-of-{files:05}.safetensors"
                for number, each in enumerate(names)
            },
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config or config_of()))
    (folder / "tokenizer.json").write_bytes(b'{"a": 1}\n' * 50)
    return folder


def read_bytes_by_name(folder: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """The tensors of all safetensors files right in a folder, read by the format's rules and nothing else."""
    found: dict[str, tuple[str, list[int], bytes]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8 : 8 + length]).items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            assert name not in found
            found[name] = entry["dtype"], entry["shape"], data[8 + length + begin : 8 + length + end]
    return found


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".textnlp-fast")
    }
