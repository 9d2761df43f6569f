"""Elliptic curve keys: ECDSA over P-256, P-384 or P-521, each with its own hash, and nothing else."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError, MissingPackageError

__all__ = ["PrivateKey", "PublicKey"]

# The hash follows from the curve. Nothing in a signature can choose another, weaker one.
_HASHES: Final = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
_LIMIT_BYTES: Final = 1 << 16


def _cryptography(module: str) -> Any:
    try:
        return import_module(f"cryptography.{module}")
    except ImportError as error:
        raise MissingPackageError(
            "signatures need cryptography", hint="Run: pip install 'textnlp-fast[signing]'"
        ) from error


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with Path(path).expanduser().open("rb") as file:
            return file.read(_LIMIT_BYTES)
    except OSError as error:
        raise InvalidInputError(f"cannot read the key {os.fspath(path)}: {error.strerror}") from error


def _algorithm(key: Any, path: str) -> Any:
    """What to sign with such a key. Raises InvalidInputError for a key of another kind."""
    curve = getattr(getattr(key, "curve", None), "name", None)
    if curve not in _HASHES:
        raise InvalidInputError(
            f"{path} is no key of the curves {', '.join(_HASHES)}",
            hint="Make one: openssl ecparam -name prime256v1 -genkey -noout -out key.pem",
        )
    ec = _cryptography("hazmat.primitives.asymmetric.ec")
    hashes = _cryptography("hazmat.primitives.hashes")
    return ec.ECDSA(getattr(hashes, _HASHES[curve])())


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with. `id` is the SHA-256 digest of its PEM form, as model-signing has it."""

    path: str
    id: str
    _key: Any = field(repr=False, compare=False)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> PublicKey:
        """Reads a PEM file. Raises InvalidInputError and MissingPackageError."""
        serialization = _cryptography("hazmat.primitives.serialization")
        data = _read(path)
        try:
            key = serialization.load_pem_public_key(data)
        except (ValueError, TypeError, _unsupported()) as error:
            raise InvalidInputError(
                f"{os.fspath(path)} is no public key in PEM form",
                hint="Make it of a private one: openssl ec -in key.pem -pubout -out key.pub.pem",
            ) from error
        _algorithm(key, os.fspath(path))
        return cls(os.fspath(path), _id(key), key)

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether the signature was made over `data` with this key's private half."""
        exceptions = _cryptography("exceptions")
        try:
            self._key.verify(signature, data, _algorithm(self._key, self.path))
        except exceptions.InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """A key that signs. It stays in this process."""

    path: str
    id: str
    _key: Any = field(repr=False, compare=False)

    @classmethod
    def read(cls, path: str | os.PathLike[str], password: str | None = None) -> PrivateKey:
        """Reads a PEM file, with a password if it is encrypted. Raises InvalidInputError and MissingPackageError."""
        serialization = _cryptography("hazmat.primitives.serialization")
        data = _read(path)
        try:
            key = serialization.load_pem_private_key(data, password.encode() if password else None)
        except (ValueError, TypeError, _unsupported()) as error:
            # Its message may repeat what is in the file.
            raise InvalidInputError(
                f"cannot read the key {os.fspath(path)}: {_why_unread(data, error, bool(password))}",
                hint="An encrypted key needs TEXTNLP_FAST_SIGN_KEY_PASSWORD, one that is not needs none.",
            ) from None
        _algorithm(key, os.fspath(path))
        return cls(os.fspath(path), _id(key.public_key()), key)

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`, in DER."""
        signature: bytes = self._key.sign(data, _algorithm(self._key, self.path))
        return signature

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.path, self.id, self._key.public_key())


def _why_unread(data: bytes, error: Exception, password: bool) -> str:
    """What is wrong with a private key, as its PEM form tells: whether it is encrypted stands there in plain words."""
    encrypted = b"BEGIN ENCRYPTED PRIVATE KEY" in data or b"Proc-Type: 4,ENCRYPTED" in data
    if encrypted:
        return "a wrong password" if password else "it needs a password"
    if isinstance(error, TypeError):
        return "it has no password, and one was given"
    return "no private key in PEM form"


def _unsupported() -> type[Exception]:
    error: type[Exception] = _cryptography("exceptions").UnsupportedAlgorithm
    return error


def _id(key: Any) -> str:
    serialization = _cryptography("hazmat.primitives.serialization")
    pem = key.public_bytes(
        encoding=serialization.Encoding.PEM, format=serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(pem).hexdigest()
