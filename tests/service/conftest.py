"""A repository with something of everything, the service over it, and callers of every role."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

from textnlp_fast.service import ServiceConfig, create_app  # noqa: E402
from textnlp_fast.service.auth.principals import Role  # noqa: E402
from textnlp_fast.service.auth.tokens import new_token  # noqa: E402
from textnlp_fast.storage import Registry, Repository, TransferOptions  # noqa: E402

OPTIONS = TransferOptions(threads=2)
Serving = Callable[..., AbstractAsyncContextManager[Any]]
NAME = "org/tiny"


def write_weights(folder: Path, seed: int) -> Path:
    """A folder with one safetensors file: an embedding, two layers of attention and MLP, a norm; BF16."""
    folder.mkdir(parents=True, exist_ok=True)
    steady, moved = np.random.default_rng(1), np.random.default_rng(seed)
    names = ["model.embed_tokens.weight", "model.norm.weight"] + [
        f"model.layers.{layer}.{part}.weight"
        for layer in range(2)
        for part in ("self_attn.q_proj", "mlp.up_proj")
    ]
    header: dict[str, object] = {}
    body = b""
    for name in names:
        array = steady.integers(0x3C00, 0x3D00, (16, 32), np.uint16)
        if "layers.1" in name:
            array = array + (moved.random(array.shape) < 0.25).astype(np.uint16)
        header[name] = {
            "dtype": "BF16",
            "shape": [16, 32],
            "data_offsets": [len(body), len(body) + array.nbytes],
        }
        body += array.tobytes()
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)
    (folder / "README.md").write_text(f"---\nlicense: mit\n---\n# Tiny, of seed {seed}\n")
    return folder


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that tests read and do not change."""
    place = tmp_path_factory.mktemp("filled")
    fill(place / "repository", place / "weights")
    return place / "repository"


def fill(root: Path | str, weights: Path, **reach: Any) -> Repository:
    """Makes a repository with two models, four versions, stages, an alias, tags, a pin and a deployment."""
    repository = Repository.open(root, create=True, options=OPTIONS, **reach)
    for number, version in enumerate(("1.0.0", "1.1.0", "2.0.0-rc.1")):
        repository.push(write_weights(weights, number), NAME, version, message=f"number {number}")
    repository.push(write_weights(weights, 7), "other", "0.1.0", parent=f"{NAME}@1.0.0")
    registry = Registry(repository, actor="alice")
    registry.move(NAME, "1.1.0", "staging", note="looks good")
    registry.set_alias(NAME, "champion", "1.1.0")
    registry.tag(NAME, "1.0.0", {"team": "nlp"})
    registry.tag(NAME, None, {"owner": "alice"})
    registry.pin(NAME, "1.0.0", "the paper's")
    registry.deploy(NAME, "1.0.0", "eu/serving-1")
    registry.deploy(NAME, "1.1.0", "eu/serving-1", note="faster", state="healthy")
    return repository


@pytest.fixture(name="fill")
def fill_fixture() -> Callable[..., Repository]:
    return fill


@pytest.fixture
def own(tmp_path: Path) -> Repository:
    """A repository that a test may change."""
    return fill(tmp_path / "repository", tmp_path / "weights")


@pytest.fixture
def serving() -> Serving:
    """`async with serving(repo) as client`: the service, begun and ended, asked without a network."""

    @asynccontextmanager
    async def begin(repo: Path | str, **config: Any) -> AsyncIterator[Any]:
        app = create_app(ServiceConfig(repo=str(repo), **config), options=OPTIONS)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1:8470", timeout=120, follow_redirects=False
            ) as client,
        ):
            client.app = app
            yield client

    return begin


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, Any]:
    """A tokens file and a token of each role, by the role's name; `file` is where they are."""
    file = tmp_path / "tokens.yaml"
    return {"file": file, **{role.word: new_token(file, f"{role.word}-1", role) for role in Role}}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def provider() -> Any:
    """An identity provider that runs for one test."""
    pytest.importorskip("jwt")
    from servers.identity import IdentityProvider  # noqa: PLC0415

    started = IdentityProvider()
    yield started
    started.close()


@pytest.fixture
def oidc(provider: Any) -> Any:
    """The service's configuration for that provider."""
    from textnlp_fast.service.config import OidcConfig  # noqa: PLC0415

    return OidcConfig(
        issuer=provider.issuer,
        audience="textnlp-fast",
        roles={f"models-{role.word}": role.word for role in Role},
        keys_pause_s=0.2,
    )


class Started:
    """A service in a process of its own, by the command line. `address` is what it printed."""

    def __init__(self, *words: str, log: Path, env: dict[str, str]) -> None:
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "textnlp_fast.cli", "serve", "--port", "0", *words],
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        self.log = log
        assert " at http" in line, (line, log.read_text(), self.process.wait(60))
        self.address = line.rsplit(" ", 1)[1].strip()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code once it was told to end."""
        self.process.send_signal(number)
        return self.process.wait(120)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts services by the words of the command line; those that still run are killed at the end of the test."""
    running: list[Started] = []

    def begin(*words: str, **env: str) -> Started:
        running.append(Started(*words, log=tmp_path / f"log-{len(running)}", env=env))
        return running[-1]

    yield begin
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait(60)
        each.process.stdout.close()
