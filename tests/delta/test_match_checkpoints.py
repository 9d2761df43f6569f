"""Matching between real checkpoints: 100 steps of fine-tuning apart, and one of the two taken apart and renamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from textnlp_fast.delta import codec
from textnlp_fast.delta.match import Candidate, Tensor, match
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.tensors import SafetensorsFile, read_into

CHECKPOINTS = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "checkpoints"
Model = dict[str, npt.NDArray[Any]]

pytestmark = pytest.mark.skipif(not CHECKPOINTS.is_dir(), reason=f"no checkpoints in {CHECKPOINTS}")

GATE = "model.layers.4.mlp.gate_proj.weight"
Q = "model.layers.4.self_attn.q_proj.weight"
O = "model.layers.4.self_attn.o_proj.weight"  # noqa: E741
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


def load(name: str) -> Model:
    """Tensors of BF16 as their bits."""
    file = SafetensorsFile.open(CHECKPOINTS / f"{name}.safetensors")
    model: Model = {}
    for tensor in file.tensors:
        model[tensor.name] = np.empty(tensor.shape, np.uint16)
        read_into(file.path, tensor.begin, model[tensor.name])
    return model


def tensors(model: Model) -> list[Tensor]:
    return [
        Tensor(
            name, "BF16" if data.itemsize == 2 else "F32", data.shape, blake3_hex(raw), len(raw), reader(raw)
        )
        for name, data in model.items()
        for raw in (data.tobytes(),)
    ]


def reader(raw: bytes) -> Any:
    return lambda begin, end: raw[begin:end]


def coded_bytes(target: npt.NDArray[Any], found: list[Candidate], sources: Model) -> int:
    """What the target takes against the best candidate's base; its own bytes come back from that."""
    held = {blake3_hex(data.tobytes()): data.tobytes() for data in sources.values()}
    base = None
    if found:
        recipe = found[0].recipe
        base = recipe.read(0, recipe.size_bytes, lambda digest, begin, end: held[digest][begin:end])
    dtype = "BF16" if target.itemsize == 2 else "F32"
    raw = target.tobytes()
    payload = codec.encode(raw, base, dtype=dtype, threads=1)
    back = bytearray(len(raw))
    codec.decode_into(payload, back, base, threads=1)
    assert bytes(back) == raw
    return len(payload)


def in_heads(data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows in the other rotary order, heads of 64."""
    rows, columns = data.shape
    return np.ascontiguousarray(data.reshape(-1, 32, 2, columns).transpose(0, 2, 1, 3).reshape(rows, columns))


@pytest.mark.parametrize("name", ["sft_0100", "rl_0100", "lora_f32", "sft_0001"])
def test_a_step_restructured_costs_what_the_step_costs(name: str) -> None:
    old, new = load("base"), load(name)
    plain = sum(coded_bytes(new[one], [], {}) for one in (GATE, Q, O, EMBEDDING, HEAD))
    same_names = match(tensors(old), tensors(new))
    steps = {one: coded_bytes(new[one], line, old) for one, line in zip(new, same_names, strict=True)}

    changed: Model = {
        "h.4.gate": new[GATE],
        "h.4.q": np.ascontiguousarray(new[Q].T),
        "h.4.o": in_heads(new[O]),
        "embeddings": np.concatenate([new[EMBEDDING], new[HEAD]]),
    }
    found = dict(zip(changed, match(tensors(old), tensors(changed)), strict=True))
    assert all(found.values()), found
    cost = sum(coded_bytes(data, found[one], old) for one, data in changed.items())
    wanted = steps[GATE] + steps[Q] + steps[O] + steps[EMBEDDING] + steps[HEAD]
    assert cost <= 1.05 * wanted + 4000
    assert cost < 0.75 * plain


def test_split_joined_side_by_side_and_grown() -> None:
    old, new = load("base"), load("sft_0100")
    sources: Model = {
        "qo": np.concatenate([old[Q], old[O]]),
        HEAD: old[HEAD],
        "gate": old[GATE],
    }
    targets: Model = {
        "a": new[Q],
        "b": new[O],
        HEAD: np.concatenate([new[HEAD], new[HEAD][:32] ^ 0x8000]),
        "side": np.ascontiguousarray(np.concatenate([new[GATE][:768], new[GATE][768:]], axis=1)),
    }
    halves: Model = {"first": old[GATE][:768], "second": old[GATE][768:]}
    found = match(tensors(sources | halves), tensors(targets))
    for (name, data), line in zip(targets.items(), found, strict=True):
        assert line, name
        assert coded_bytes(data, line, sources | halves) < 0.62 * coded_bytes(data, [], {})


def test_checkpoints_of_other_tensors_do_not_match() -> None:
    old = load("base")
    found = match(
        tensors({"o": old[O], "head": old[HEAD]}), tensors({"q": old[Q], "embedding": old[EMBEDDING]})
    )
    assert found == [[], []]
