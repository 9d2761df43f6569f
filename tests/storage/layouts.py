"""One small model in many layouts: what libraries and training do to a checkpoint between two versions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint16]
Tensors = dict[str, npt.NDArray[np.generic]]

HEADS = 4
LAYERS = 4


def weights(rng: np.random.Generator, *shape: int) -> Words:
    """bf16 weights that look like trained ones."""
    return (rng.normal(0, 0.02, shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def model(seed: int = 0, layers: int = LAYERS) -> Tensors:
    rng = np.random.default_rng(seed)
    tensors: Tensors = {"embed.weight": weights(rng, 200, 128)}
    for number in range(layers):
        at = f"layers.{number}."
        for name, rows in (("q", 128), ("k", 128), ("v", 128), ("gate", 192), ("up", 192)):
            tensors[f"{at}{name}.weight"] = weights(rng, rows, 128)
        tensors[f"{at}down.weight"] = weights(rng, 128, 192)
        tensors[f"{at}norm.weight"] = np.full(128, 0x3F80, np.uint16)
    return tensors


def trained(tensors: Tensors, seed: int = 9, share: float = 0.04) -> Tensors:
    """A share of the weights moves by one ULP."""
    rng = np.random.default_rng(seed)
    return {
        name: array + (rng.random(array.shape) < share).astype(array.dtype) for name, array in tensors.items()
    }


def _by_layer(
    tensors: Tensors, change: Callable[[str, dict[str, npt.NDArray[np.generic]]], Tensors]
) -> Tensors:
    changed = {name: array for name, array in tensors.items() if not name.startswith("layers.")}
    numbers = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("layers.")})
    for number in numbers:
        at = f"layers.{number}."
        changed |= change(at, {k.removeprefix(at): v for k, v in tensors.items() if k.startswith(at)})
    return changed


def fused(tensors: Tensors) -> Tensors:
    """Query, key and value in one, one after the other; gate and up likewise."""

    def change(at: str, parts: dict[str, npt.NDArray[np.generic]]) -> Tensors:
        return {
            f"{at}qkv.weight": np.concatenate([parts[f"{name}.weight"] for name in "qkv"]),
            f"{at}gate_up.weight": np.concatenate([parts["gate.weight"], parts["up.weight"]]),
            f"{at}down.weight": parts["down.weight"],
            f"{at}norm.weight": parts["norm.weight"],
        }

    return _by_layer(tensors, change)


def interleaved(tensors: Tensors) -> Tensors:
    """Query, key and value in one, head by head."""

    def change(at: str, parts: dict[str, npt.NDArray[np.generic]]) -> Tensors:
        width = parts["q.weight"].shape[1]
        heads = [parts[f"{name}.weight"].reshape(HEADS, -1, width) for name in "qkv"]
        rest = {f"{at}{name}": array for name, array in parts.items() if name[:2] not in ("q.", "k.", "v.")}
        return {f"{at}qkv.weight": np.concatenate(heads, axis=1).reshape(-1, width), **rest}

    return _by_layer(tensors, change)


def split(tensors: Tensors) -> Tensors:
    """Back from `fused`."""

    def change(at: str, parts: dict[str, npt.NDArray[np.generic]]) -> Tensors:
        q, k, v = np.split(parts["qkv.weight"], 3)
        gate, up = np.split(parts["gate_up.weight"], 2)
        rest = {"q": q, "k": k, "v": v, "gate": gate, "up": up, "down": parts["down.weight"]}
        return {f"{at}{n}.weight": a for n, a in rest.items()} | {f"{at}norm.weight": parts["norm.weight"]}

    return _by_layer(tensors, change)


def grown(tensors: Tensors) -> Tensors:
    more = weights(np.random.default_rng(77), 24, 128)
    return {**tensors, "embed.weight": np.concatenate([tensors["embed.weight"], more])}


def renamed(tensors: Tensors) -> Tensors:
    """Every name is another; numbers stay."""
    names = {"q": "query", "k": "key", "v": "value", "gate": "w1", "up": "w3", "down": "w2", "norm": "ln"}
    changed: Tensors = {}
    for name, array in tensors.items():
        words = name.split(".")
        new = (
            f"wte.{words[-1]}" if words[0] == "embed" else f"blocks.{words[1]}.{names[words[2]]}.{words[-1]}"
        )
        changed[new] = array
    return changed


def turned(tensors: Tensors) -> Tensors:
    """Matrices of the layers are stored the other way round, under other names."""
    changed: Tensors = {}
    for name, array in tensors.items():
        if name.startswith("layers.") and array.ndim == 2:
            changed[name.replace(".weight", ".kernel")] = np.ascontiguousarray(array.T)
        else:
            changed[name] = array
    return changed


def widened(tensors: Tensors) -> Tensors:
    """In fp32, with bits below those of bf16."""
    rng = np.random.default_rng(5)
    return {
        name: (array.astype(np.uint32) << np.uint32(16)) | rng.integers(0, 1 << 15, array.shape, np.uint32)
        for name, array in tensors.items()
    }


def narrowed(tensors: Tensors) -> Tensors:
    """Back to bf16, by cutting: not what a cast does, so that there is something to code."""
    return {name: (array >> np.uint32(16)).astype(np.uint16) for name, array in tensors.items()}


def stacked(tensors: Tensors) -> Tensors:
    """The layers' gates as one tensor of three dimensions, as experts are kept."""
    changed = {name: array for name, array in tensors.items() if ".gate." not in name}
    gates = [array for name, array in tensors.items() if ".gate." in name]
    return {**changed, "experts.gate.weight": np.stack(gates)}


#: By name: the layout that comes first, and what is made of it.
CHANGES: dict[str, tuple[Callable[[Tensors], Tensors], Callable[[Tensors], Tensors]]] = {
    "fused": (dict, fused),
    "interleaved": (dict, interleaved),
    "split": (fused, split),
    "grown": (dict, grown),
    "shrunk": (grown, lambda tensors: {**tensors, "embed.weight": tensors["embed.weight"][:200]}),
    "renamed": (dict, renamed),
    "turned": (dict, turned),
    "cast": (widened, narrowed),
    "cast back": (dict, widened),
    "stacked": (dict, stacked),
}
