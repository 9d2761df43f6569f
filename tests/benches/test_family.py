"""The checkpoints that the bench trains: real gradients, real optimisers, the same bits each time."""

from __future__ import annotations

import numpy as np
import pytest

from family import CONTEXT, Language, Lion, Size, initial, loss_and_gradients, train

SMALL = Size(vocabulary=32, embedding=8, hidden=16, block=16, batch=16, pretraining_steps=120)


def test_gradients_are_those_of_finite_differences() -> None:
    weights = {name: weight.astype(np.float64) for name, weight in initial(SMALL, seed=7).items()}
    contexts, following = next(Language(SMALL.vocabulary, seed=8).batches(SMALL, seed=9))
    _, gradients = loss_and_gradients(weights, contexts, following)  # type: ignore[arg-type]
    random, step = np.random.default_rng(10), 1e-6
    assert gradients.keys() == weights.keys()
    for name, weight in weights.items():
        for place in random.integers(0, weight.size, 5):
            kept = weight.flat[place]
            losses = []
            for moved in (kept + step, kept - step):
                weight.flat[place] = moved
                losses.append(loss_and_gradients(weights, contexts, following)[0])  # type: ignore[arg-type]
            weight.flat[place] = kept
            slope = (losses[0] - losses[1]) / (2 * step)
            assert gradients[name].flat[place] == pytest.approx(slope, rel=1e-4, abs=1e-8), name


def test_lion_moves_every_weight_by_the_rate() -> None:
    weights = {"a": np.array([0.0, 0.0, 0.0], np.float32)}
    Lion(weights).step(weights, {"a": np.array([2.0, -1e-9, 0.0], np.float32)}, rate=0.5)
    assert weights["a"].tolist() == [-0.5, 0.5, 0.0]


def test_training_learns_and_gives_the_same_bits_again() -> None:
    masters, losses = train(SMALL)
    again, _ = train(SMALL)
    assert losses["pretraining ends"] < losses["pretraining starts"] - 0.2
    names = {"base", *(f"{o}_{step}" for o in ("sgd", "lion") for step in ("0001", "0010", "0099", "0100"))}
    assert masters.keys() == names
    for name, weights in masters.items():
        for tensor, weight in weights.items():
            assert weight.dtype == np.float32
            assert np.array_equal(weight, again[name][tensor]), (name, tensor)
            if name != "base":
                assert not np.array_equal(weight, masters["base"][tensor]), (name, tensor)


def test_the_language_depends_on_what_came_before() -> None:
    contexts, following = next(Language(32, seed=1).batches(Size(vocabulary=32, batch=4000), seed=2))
    assert contexts.shape == (4000, CONTEXT)
    overall = np.bincount(following, minlength=32) / following.size
    after = np.bincount(following[contexts[:, -1] == np.argmax(overall)], minlength=32)
    assert np.abs(after / after.sum() - overall).sum() > 0.1
