"""Cutting a model into shards and putting it together again, beside a plain copy of its file.

    python benches/shard.py                  # 1 GB, three rounds
    python benches/shard.py --size-gb 4

The rounds go through all rows in turn, in the page cache; every result is taken away before the next one is made, and
the merged model is compared with the original, outside of the clock. Whatever is made is synced to the disk.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy

from textnlp_fast.storage.sharding import merge_shards, shard_model

_WIDTH = 2048
_RANKS = 4


def make_model(folder: Path, size_bytes: int) -> Path:
    """A Llama in fp16, of as many layers as make about that size."""
    folder.mkdir()
    random = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return random.integers(0, 1 << 16, (rows, columns), dtype=np.uint16).view(np.float16)

    kinds = {f"self_attn.{each}_proj": (_WIDTH, _WIDTH) for each in "qkvo"}
    kinds |= {"mlp.gate_proj": (4 * _WIDTH, _WIDTH), "mlp.up_proj": (4 * _WIDTH, _WIDTH)}
    kinds |= {"mlp.down_proj": (_WIDTH, 4 * _WIDTH)}
    layer_bytes = 2 * sum(rows * columns for rows, columns in kinds.values())
    layers = max(_RANKS, size_bytes // layer_bytes)
    tensors = {
        f"model.layers.{layer}.{kind}.weight": matrix(*shape)
        for layer in range(layers)
        for kind, shape in kinds.items()
    }
    tensors["model.embed_tokens.weight"] = matrix(1024, _WIDTH)
    tensors["model.norm.weight"] = matrix(1, _WIDTH)[0]
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": _WIDTH,
        "intermediate_size": 4 * _WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": 1024,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def plain_copy(source: Path, target: Path) -> None:
    target.mkdir()
    shutil.copyfile(source / "model.safetensors", target / "model.safetensors")
    with (target / "model.safetensors").open("rb+") as file:
        os.fsync(file.fileno())


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock, and of the processor."""
    os.sync()
    begun, begun_cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - begun_cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size-gb", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shard-bench-") as name:
        place = Path(name)
        model = make_model(place / "model", int(arguments.size_gb * 1e9))
        size = (model / "model.safetensors").stat().st_size
        cuts = {
            "size_based": {},
            "layer_based": {},
            "pipeline": {"ranks": _RANKS},
            "tensor_parallel": {"ranks": _RANKS},
        }
        rows: dict[str, list[tuple[float, float]]] = {}
        for _ in range(arguments.rounds):
            rows.setdefault("a copy of the file, synced", []).append(
                timed(lambda: plain_copy(model, place / "copy"))
            )
            shutil.rmtree(place / "copy")
            for strategy, options in cuts.items():
                shards, merged = place / "shards", place / "merged"
                took = timed(
                    lambda s=strategy, o=options, out=shards: shard_model(
                        model, out, strategy=s, max_shard_bytes=size // 8, **o
                    )
                )
                rows.setdefault(f"{strategy}: shard", []).append(took)
                took = timed(lambda source=shards, out=merged: merge_shards(source, out))
                rows.setdefault(f"{strategy}: merge", []).append(took)
                same = filecmp.cmp(model / "model.safetensors", merged / "model.safetensors", shallow=False)
                assert same, strategy
                shutil.rmtree(shards)
                shutil.rmtree(merged)
    print(f"{size / 1e9:.2f} GB, {_RANKS} ranks, medians of {arguments.rounds} rounds\n")
    print("| | seconds | of the processor |\n|---|---:|---:|")
    for what, seconds in rows.items():
        clock, processor = (statistics.median(column) for column in zip(*seconds, strict=True))
        print(f"| {what} | {clock:.2f} | {processor:.2f} |")
    print(f"\n{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
