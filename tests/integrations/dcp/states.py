"""States that ranks save, made from a seed on every rank; what comes back is compared with them bit by bit."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.tensor import DeviceMesh, Replicate, Shard, distribute_tensor

STEP_1, STEP_2 = 1, 2


def whole_tensors(step: int) -> dict[str, torch.Tensor]:
    """A model of many types and shapes, and what becomes of it: few weights change, by one step."""
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    tensors = {
        "embed": normal(501, 64).to(torch.bfloat16),
        "matrix": normal(64, 96),
        "cube": normal(6, 10, 8).to(torch.float16),
        "few": normal(3, 5).to(torch.bfloat16),
        "fp8": normal(40, 16).to(torch.float8_e4m3fn),
        "same": normal(9, 9),
        "words": torch.randint(0, 1 << 40, (77,), generator=generator),
        "mask": torch.rand(33, generator=generator) < 0.5,
        "empty": torch.empty(0, 4),
        "scalar": torch.tensor(3.25, dtype=torch.float64),
        "wave": torch.complex(normal(12), normal(12)),
    }
    if step >= STEP_2:
        for name in ("embed", "matrix", "cube"):
            kind = torch.int32 if tensors[name].dtype == torch.float32 else torch.int16
            flat = tensors[name].view(-1).view(kind)
            flat[:: 97 + step] += 1
        tensors["words"][step] += step
        tensors["scalar"] += step
    return tensors


def placements() -> dict[str, Any]:
    """How each tensor is sharded; those that are missing are plain."""
    return {
        "embed": Shard(0),
        "matrix": Shard(1),
        "cube": Shard(1),
        "few": Shard(0),
        "same": Replicate(),
        "empty": Shard(0),
    }


def state_of(step: int, mesh: DeviceMesh, *, blank: bool = False) -> dict[str, Any]:
    """The state as ranks of a mesh hold it; `blank` with other values, to be loaded into."""
    tensors = whole_tensors(step)
    if blank:
        tensors = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    sharded = placements()
    model = {
        name: distribute_tensor(tensor, mesh, [sharded[name]]) if name in sharded else tensor
        for name, tensor in tensors.items()
    }
    plain = {"values": values(step), "lr": 0.1 * step}
    return {"model": model, **(emptied(plain) if blank else plain)}


def emptied(value: Any) -> Any:
    """The same containers with nothing in them."""
    if isinstance(value, dict):
        return {key: emptied(each) for key, each in value.items()}
    return type(value)(map(emptied, value)) if isinstance(value, list | tuple) else None


def values(step: int) -> dict[str, Any]:
    """Plain data, its awkward corners included."""
    return {
        "betas": (0.9, 0.999),
        "steps": [step, -(1 << 80), True, None],
        "odd": float("-inf"),
        "text": "Zürich\n",
        "raw": b"\x00\xff",
        "keys": {"3": "three"},
    }


def differences(state: dict[str, Any], step: int) -> list[str]:
    """Names whose bits are not what they should be."""
    wrong = []
    for name, expected in whole_tensors(step).items():
        found = state["model"][name]
        if hasattr(found, "full_tensor"):
            found = found.full_tensor()
        if found.dtype != expected.dtype or bits(found) != bits(expected):
            wrong.append(name)
    if state["values"] != values(step) or state["lr"] != 0.1 * step:
        wrong.append("values")
    return wrong


def bits(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def mesh_of(world: int) -> DeviceMesh:
    return DeviceMesh("cpu", list(range(world)))
