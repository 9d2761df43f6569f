"""A real repository and the real service on it, for a browser to look at."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import uvicorn
from safetensors.numpy import save_file

from textnlp_fast.service import ServiceConfig, create_app
from textnlp_fast.storage import Lineage, Registry, Repository

MODEL = "tiny-llama"
LAYERS = 4
SIDE = 48
# What a name, a note, a card may hold. None of it is to become anything but text.
HOSTILE = '"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>{{7*7}}'
CARD = f"""---
license: apache-2.0
---
# Tiny Llama

A *small* model with **few** weights; `run` it.

- first
- second {HOSTILE}

| bench | score |
|---|---|
| mmlu | 0.71 |

[the web](https://example.org/x) [no](javascript:window.hacked=1) ![picture](https://example.org/p.png)
"""

Weights = dict[str, npt.NDArray[Any]]


def first_weights(seed: int = 1) -> Weights:
    """A Llama's names, with weights by chance."""
    random = np.random.default_rng(seed)

    def matrix(rows: int = SIDE, columns: int = SIDE) -> npt.NDArray[Any]:
        return random.normal(0, 0.05, (rows, columns)).astype(np.float16)

    weights = {"model.embed_tokens.weight": matrix(200), "lm_head.weight": matrix(200)}
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            weights[f"{name}.self_attn.{part}.weight"] = matrix()
        for part in ("gate_proj", "up_proj", "down_proj"):
            weights[f"{name}.mlp.{part}.weight"] = matrix()
        weights[f"{name}.input_layernorm.weight"] = np.ones(SIDE, np.float16)
    weights["model.norm.weight"] = np.ones(SIDE, np.float16)
    return weights


def trained(weights: Weights, seed: int) -> Weights:
    """Some weights of the matrices a little further, more of them in later layers."""
    random = np.random.default_rng(seed)
    after = {}
    for name, values in weights.items():
        layer = next((int(part) for part in name.split(".") if part.isdecimal()), 1)
        share = 0.0 if "norm" in name else 0.02 + 0.05 * layer * ("mlp" in name)
        moved = random.random(values.shape) < share
        after[name] = np.where(moved, values * np.float16(1.01), values).astype(np.float16)
    return after


def write(folder: Path, weights: Weights, *, card: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    if card is not None:
        (folder / "README.md").write_text(card)
    return folder


def furnish(root: Path, repository: Repository) -> None:
    """Versions of two models, with all that can be said of them."""
    weights = first_weights()
    for number in range(6):
        folder = write(root / f"v{number}", weights, card=CARD if number == 5 else None)
        lineage = Lineage(base_model=f"meta/{HOSTILE}", training_run=HOSTILE) if number == 5 else Lineage()
        repository.push(
            folder,
            MODEL,
            f"1.{number}.0",
            message=HOSTILE if number == 4 else f"{number * 100} steps",
            metadata={"run": HOSTILE, **lineage.metadata()},
        )
        weights = trained(weights, number)
    repository.push(root / "v0", "org/policy", "0.1.0", message="a start")
    registry = Registry(repository, actor="alice")
    registry.move(MODEL, "1.2.0", "staging")
    registry.move(MODEL, "1.2.0", "production", note="passed")
    registry.set_alias(MODEL, "champion", "1.2.0")
    registry.tag(MODEL, "1.5.0", {"eval/mmlu": HOSTILE})
    registry.pin(MODEL, "1.0.0", HOSTILE)
    for version in ("1.1.0", "1.2.0"):
        registry.deploy(MODEL, version, "eu-serving", note=HOSTILE)


class Served:
    """The service at work, in a thread; `base` is where."""

    def __init__(self, config: ServiceConfig) -> None:
        self._config = config
        self._socket = socket.create_server(("127.0.0.1", config.port))
        self.port: int = self._socket.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"
        # Long streams are cut off when it is told to end.
        self._server = uvicorn.Server(
            uvicorn.Config(create_app(config), log_level="critical", timeout_graceful_shutdown=1)
        )
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def begin(self) -> None:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the service did not start"
            self._thread.join(0.02)

    def end(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


@contextmanager
def serving(root: Path, **settings: Any) -> Iterator[Served]:
    """The service on `root`'s repository and fleet; transfers may use all of `root`."""
    served = Served(
        ServiceConfig(
            repo=str(root / "repository"),
            fleet_state=str(root / "fleet"),
            allowed_paths=(root,),
            **{"port": 0, **settings},
        )
    )
    served.begin()
    try:
        yield served
    finally:
        served.end()
