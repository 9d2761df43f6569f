"""Keys made on the spot, and a repository with a version or two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from textnlp_fast.storage import Repository, TransferOptions

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from textnlp_fast.storage.signing import PrivateKey, PublicKey


@dataclass(frozen=True)
class KeyPair:
    private_path: Path
    public_path: Path

    @property
    def private(self) -> PrivateKey:
        return PrivateKey.read(self.private_path)

    @property
    def public(self) -> PublicKey:
        return PublicKey.read(self.public_path)


def make_key(
    folder: Path, name: str, curve: ec.EllipticCurve | None = None, password: bytes | None = None
) -> KeyPair:
    """A key pair in two PEM files."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    hiding = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hiding)
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return KeyPair(private, public)


def make_model(folder: Path, seed: int = 0) -> Path:
    """A Hugging Face directory with two tensors of one shape, and files beside them, some of git."""
    body = np.random.default_rng(seed).bytes(8192)
    header = b'{"a":{"dtype":"U8","shape":[4096],"data_offsets":[0,4096]},'
    header += b'"b":{"dtype":"U8","shape":[4096],"data_offsets":[4096,8192]}}'
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + body)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer" / "vocab.json").write_text('{"a": 1}')
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (folder / "empty.txt").write_text("")
    return folder


@pytest.fixture
def key(tmp_path: Path) -> KeyPair:
    return make_key(tmp_path, "key")


@pytest.fixture
def other_key(tmp_path: Path) -> KeyPair:
    return make_key(tmp_path, "other")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    options = TransferOptions(shard_bytes=1 << 16, threads=2)
    return Repository.open(tmp_path / "repository", create=True, options=options, window_bytes=1 << 12)


@pytest.fixture
def signed(repository: Repository, model: Path, key: KeyPair) -> Repository:
    repository.push(model, "m", "1.0.0", sign_key=key.private)
    return repository


def bundle_of(repository: Repository) -> str:
    (place,) = (meta.key for meta in repository.store.list("signatures"))
    return place
