"""Which keys are read, and what an encrypted one keeps to itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from storage.signing.conftest import make_key
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.signing import PrivateKey, PublicKey


def test_keys_of_other_kinds_are_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa  # noqa: PLC0415

    weak = make_key(tmp_path, "k1", ec.SECP192R1())
    for path in (weak.private_path,):
        with pytest.raises(InvalidInputError, match="no key of the curves"):
            PrivateKey.read(path)
    for number, private in enumerate(
        [rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()]
    ):
        path = tmp_path / f"{number}.pem"
        path.write_bytes(
            private.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        with pytest.raises(InvalidInputError, match="no key of the curves"):
            PublicKey.read(path)
    for junk in (b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        path.write_bytes(junk)
        with pytest.raises(InvalidInputError, match="no public key"):
            PublicKey.read(path)
        with pytest.raises(InvalidInputError, match="no private key"):
            PrivateKey.read(path)
    with pytest.raises(InvalidInputError, match="cannot read"):
        PublicKey.read(tmp_path / "nothing.pem")


def test_an_encrypted_key_needs_its_password_and_shows_it_nowhere(tmp_path: Path) -> None:
    pair = make_key(tmp_path, "hidden", password=b"s3cret")
    assert PrivateKey.read(pair.private_path, "s3cret").id == pair.public.id
    assert "s3cret" not in repr(PrivateKey.read(pair.private_path, "s3cret"))
    for wrong in (None, "other"):
        with pytest.raises(InvalidInputError, match="cannot read the key"):
            PrivateKey.read(pair.private_path, wrong)
