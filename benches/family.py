"""A second family of checkpoints, trained here in some seconds: other architecture, other optimisers, other data.

A next-token model on a synthetic language: embeddings of the last eight tokens side by side, a dense layer, two
residual blocks, a head; about a million weights, numpy, gradients by hand (the tests hold them against finite
differences). It is pre-trained with momentum SGD on one language; from that base, momentum SGD and Lion (Chen et
al. 2023, arXiv:2302.06675) each fine-tune it to another. The trained fp32 weights are what is kept; casts to
narrower types are made when they are asked for.

    python benches/family.py            train, and print the losses
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from measure import OUT_DIRECTORY

Weights: TypeAlias = dict[str, npt.NDArray[np.float32]]
Tokens: TypeAlias = npt.NDArray[np.int64]

CONTEXT = 8
OPTIMISERS = ("sgd", "lion")
KEPT_STEPS = (1, 10, 99, 100)


@dataclass(frozen=True)
class Size:
    vocabulary: int = 512
    embedding: int = 64
    hidden: int = 384
    block: int = 384
    batch: int = 128
    pretraining_steps: int = 400


class Language:
    """Tokens whose distribution depends on the classes of the two before: Zipf's law, reordered in each context."""

    def __init__(self, vocabulary: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self._classes = random.integers(0, 8, vocabulary)
        odds = 1 / np.arange(1, vocabulary + 1) ** 1.3
        tables = np.stack([random.permutation(odds) for _ in range(64)])
        # Some words are frequent everywhere and some are rare everywhere, as in a real language.
        tables *= odds ** random.uniform(0.2, 0.5)
        self._cumulative = np.cumsum(tables / tables.sum(1, keepdims=True), axis=1)

    def batches(self, size: Size, seed: int) -> Iterator[tuple[Tokens, Tokens]]:
        """Contexts (batch x CONTEXT) and the token that follows each, without end."""
        random = np.random.default_rng(seed)
        text = random.integers(0, size.vocabulary, (size.batch, CONTEXT))
        while True:
            for _ in range(CONTEXT):
                text = np.column_stack([text[:, 1:], self._next(text, random)])
            yield text, self._next(text, random)

    def _next(self, text: Tokens, random: np.random.Generator) -> Tokens:
        rows = self._cumulative[8 * self._classes[text[:, -2]] + self._classes[text[:, -1]]]
        below = (rows < random.random((len(text), 1))).sum(1)
        found: Tokens = np.minimum(below, rows.shape[1] - 1)
        return found


def initial(size: Size, seed: int) -> Weights:
    """He's normal initialisation; biases at zero."""
    random = np.random.default_rng(seed)

    def dense(rows: int, columns: int, gain: float = 2.0) -> npt.NDArray[np.float32]:
        scale = np.float32(np.sqrt(gain / columns))
        return random.standard_normal((rows, columns), dtype=np.float32) * scale

    weights = {"embed": dense(size.vocabulary, size.embedding, size.embedding * 0.25)}
    weights["mix.weight"] = dense(size.hidden, CONTEXT * size.embedding)
    weights["mix.bias"] = np.zeros(size.hidden, np.float32)
    for number in range(2):
        weights[f"block{number}.up.weight"] = dense(size.block, size.hidden)
        weights[f"block{number}.up.bias"] = np.zeros(size.block, np.float32)
        weights[f"block{number}.down.weight"] = dense(size.hidden, size.block, 0.5)
    weights["head.weight"] = dense(size.vocabulary, size.hidden, 0.5)
    weights["head.bias"] = np.zeros(size.vocabulary, np.float32)
    return weights


def loss_and_gradients(weights: Weights, contexts: Tokens, following: Tokens) -> tuple[float, Weights]:
    """Mean cross-entropy in nats, and its gradient in every weight."""
    batch = len(contexts)
    embedded = weights["embed"][contexts].reshape(batch, -1)
    state = np.maximum(embedded @ weights["mix.weight"].T + weights["mix.bias"], 0)
    states, inner = [state], []
    for number in range(2):
        up = states[-1] @ weights[f"block{number}.up.weight"].T + weights[f"block{number}.up.bias"]
        inner.append(np.maximum(up, 0))
        states.append(states[-1] + inner[-1] @ weights[f"block{number}.down.weight"].T)
    logits = states[-1] @ weights["head.weight"].T + weights["head.bias"]
    logits -= logits.max(axis=1, keepdims=True)
    odds = np.exp(logits)
    totals = odds.sum(axis=1, keepdims=True)
    rows = np.arange(batch)
    loss = float(np.mean(np.log(totals[:, 0]) - logits[rows, following]))

    back = odds / totals
    back[rows, following] -= 1
    back /= batch
    gradients = {"head.weight": back.T @ states[-1], "head.bias": back.sum(0)}
    back = back @ weights["head.weight"]
    for number in (1, 0):
        gradients[f"block{number}.down.weight"] = back.T @ inner[number]
        through = (back @ weights[f"block{number}.down.weight"]) * (inner[number] > 0)
        gradients[f"block{number}.up.weight"] = through.T @ states[number]
        gradients[f"block{number}.up.bias"] = through.sum(0)
        back = back + through @ weights[f"block{number}.up.weight"]
    back = back * (states[0] > 0)
    gradients["mix.weight"] = back.T @ embedded
    gradients["mix.bias"] = back.sum(0)
    gradients["embed"] = np.zeros_like(weights["embed"])
    into = (back @ weights["mix.weight"]).reshape(-1, weights["embed"].shape[1])
    np.add.at(gradients["embed"], contexts.reshape(-1), into)
    return loss, gradients


class Sgd:
    """SGD with momentum 0.9."""

    def __init__(self, weights: Weights) -> None:
        self._velocity = {name: np.zeros_like(weight) for name, weight in weights.items()}

    def step(self, weights: Weights, gradients: Weights, rate: float) -> None:
        for name, velocity in self._velocity.items():
            velocity[...] = np.float32(0.9) * velocity + gradients[name]
            weights[name] -= np.float32(rate) * velocity


class Lion:
    """Lion: every weight moves by the learning rate, in the direction of an average; weight decay 0.1."""

    def __init__(self, weights: Weights) -> None:
        self._average = {name: np.zeros_like(weight) for name, weight in weights.items()}

    def step(self, weights: Weights, gradients: Weights, rate: float) -> None:
        for name, average in self._average.items():
            gradient = gradients[name]
            direction = np.sign(np.float32(0.9) * average + np.float32(0.1) * gradient)
            weights[name] -= np.float32(rate) * (direction + np.float32(0.1) * weights[name])
            average[...] += np.float32(0.01) * (gradient - average)


def train(size: Size = Size()) -> tuple[dict[str, Weights], dict[str, float]]:
    """Masters by checkpoint ("base", "sgd_0001", ...), and the losses at the ends of each run, in nats."""
    weights = initial(size, seed=1)
    losses: dict[str, float] = {}
    sgd, text = Sgd(weights), Language(size.vocabulary, seed=2).batches(size, seed=3)
    for step in range(size.pretraining_steps):
        loss, gradients = loss_and_gradients(weights, *next(text))
        losses.setdefault("pretraining starts", loss)
        losses["pretraining ends"] = loss
        sgd.step(weights, gradients, rate=0.05 * (1 - step / size.pretraining_steps))
    masters = {"base": _copy(weights)}
    for name, optimiser, rate in (("sgd", Sgd, 2e-3), ("lion", Lion, 1e-5)):
        weights = _copy(masters["base"])
        running, text = optimiser(weights), Language(size.vocabulary, seed=4).batches(size, seed=5)
        for step in range(1, KEPT_STEPS[-1] + 1):
            loss, gradients = loss_and_gradients(weights, *next(text))
            losses.setdefault(f"{name} starts", loss)
            losses[f"{name} ends"] = loss
            running.step(weights, gradients, rate)
            if step in KEPT_STEPS:
                masters[f"{name}_{step:04}"] = _copy(weights)
    return masters, losses


def _copy(weights: Weights) -> Weights:
    return {name: weight.copy() for name, weight in weights.items()}


def _cache() -> Path:
    key = hashlib.sha256(Path(__file__).read_bytes() + np.__version__.encode()).hexdigest()[:16]
    return OUT_DIRECTORY / f"family-{key}.npz"


def load() -> dict[str, Weights]:
    """The masters by checkpoint, from the cache or trained now (in a process of its own, with one thread).

    With one thread of BLAS the same machine gives the same bits again; another may round sums differently.
    """
    if not _cache().exists():
        one = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        subprocess.run(
            [sys.executable, __file__], env=os.environ | one, check=True, stdout=subprocess.DEVNULL
        )
    masters: dict[str, Weights] = {}
    with np.load(_cache()) as stored:
        for key in stored.files:
            checkpoint, _, tensor = key.partition("/")
            masters.setdefault(checkpoint, {})[tensor] = stored[key]
    return masters


def main() -> None:
    masters, losses = train()
    for name, loss in losses.items():
        print(f"{name}: {loss:.3f} nats")
    path = _cache()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.tmp.npz")
    arrays = {f"{c}/{t}": array for c, weights in masters.items() for t, array in weights.items()}
    np.savez(partial, allow_pickle=False, **arrays)
    partial.replace(path)
    print(f"{sum(weight.size for weight in masters['base'].values())} weights, kept in {path}")


if __name__ == "__main__":
    main()
