"""Versions are signed, and used only if they are; model-signing's own tools agree."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import textnlp_fast
from storage.signing.conftest import KeyPair, bundle_of, make_key, make_model
from textnlp_fast import load, swap
from textnlp_fast.errors import InvalidInputError, SignatureRequiredError
from textnlp_fast.storage import Repository
from textnlp_fast.storage.hub.exporting import export_snapshot
from textnlp_fast.storage.oci.exporting import export_oci
from textnlp_fast.storage.signing import SignaturePolicy

#: model-signing 1.1 needs pyOpenSSL and does not say so.
HAS_ORACLE = bool(find_spec("model_signing") and find_spec("OpenSSL"))


def model_signing(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.skipif(not HAS_ORACLE, reason="no model-signing: pip install model-signing pyopenssl")
def test_model_signing_verifies_what_was_pulled(
    tmp_path: Path, repository: Repository, model: Path, key: KeyPair, other_key: KeyPair
) -> None:
    from model_signing import hashing, verifying  # noqa: PLC0415

    repository.push(model, "org/m", "1.0.0", sign_key=key.private)
    out, bundle = tmp_path / "out", tmp_path / "m.sig"
    repository.pull("org/m", "1.0.0", out, signatures=SignaturePolicy.of([key.public_path]))
    bundle.write_bytes(repository.store.get(bundle_of(repository)))
    words = ("verify", "key", out, "--signature", bundle, "--public_key", key.public_path)
    assert "succeeded" in model_signing(*words).stdout

    def verify(public: Path) -> None:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public)
        config.set_hashing_config(hashing.Config()).verify(out, bundle)

    def refused(public: Path, what: str) -> None:
        """Refused for `what`, a name of ours: how that is said changes from version to version."""
        with pytest.raises(ValueError, match=what):
            verify(public)

    verify(key.public_path)
    refused(other_key.public_path, "(?i)key")
    (out / "config.json").write_text('{"hidden": true}')
    refused(key.public_path, r"config\.json")
    (out / "config.json").write_text("{}")
    verify(key.public_path)
    (out / "more.json").write_text("{}")
    refused(key.public_path, r"more\.json")
    (out / "more.json").unlink()
    verify(key.public_path)


@pytest.mark.parametrize(
    "curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name
)
def test_what_is_signed_is_pulled_and_what_is_not_is_refused_before_anything_is_written(
    tmp_path: Path, repository: Repository, model: Path, curve: ec.EllipticCurve
) -> None:
    key = make_key(tmp_path, "curve", curve)
    policy = SignaturePolicy.of([key.public_path])
    repository.push(model, "m", "1.0.0")
    with pytest.raises(SignatureRequiredError, match="has not signed") as caught:
        repository.pull("m", "1.0.0", tmp_path / "out", signatures=policy)
    assert caught.value.exit_code == 12
    assert not (tmp_path / "out").exists()
    signed = repository.sign("m", "1.0.0", key.private)  # without the files: they are pulled and verified
    assert not signed.already_there
    assert repository.sign("m", "1.0.0", key.private, files=model).already_there
    repository.pull("m", "1.0.0", tmp_path / "out", signatures=policy)
    assert (tmp_path / "out" / "config.json").read_text() == "{}"


def test_a_push_signs_before_the_version_appears(
    repository: Repository, model: Path, key: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    for name in ("create", "compare_and_swap"):
        write = getattr(type(repository.store), name)

        def watch(self: Any, place: str, *arguments: Any, write: Any = write) -> Any:
            seen.append(place.split("/", maxsplit=1)[0])
            return write(self, place, *arguments)

        monkeypatch.setattr(type(repository.store), name, watch)
    repository.push(model, "m", "1.0.0", sign_key=key.private)
    assert seen.index("signatures") < seen.index("models")


def test_a_version_that_is_there_is_signed_by_pushing_it_again(
    tmp_path: Path, repository: Repository, model: Path, key: KeyPair
) -> None:
    repository.push(model, "m", "1.0.0")
    assert repository.push(model, "m", "1.0.0", sign_key=key.private).already_there
    repository.pull("m", "1.0.0", tmp_path / "out", signatures=SignaturePolicy.of([key.public_path]))


def test_loads_and_swaps_ask_for_signatures_too(
    tmp_path: Path, repository: Repository, model: Path, key: KeyPair
) -> None:
    repository.push(model, "m", "1.0.0")
    repository.push(make_model(tmp_path / "second", 1), "m", "1.1.0")
    strict = Repository.open(tmp_path / "repository", signatures=SignaturePolicy.of([key.public_path]))
    with pytest.raises(SignatureRequiredError):
        load("m", "1.0.0", repository=strict)
    repository.sign("m", "1.0.0", key.private, files=model)
    tensors = load("m", "1.0.0", repository=strict)
    before = {name: bytes(memoryview(value).cast("B")) for name, value in tensors.items()}
    with pytest.raises(SignatureRequiredError):
        swap(tensors, "m@1.1.0", repository=strict)
    assert {name: bytes(memoryview(value).cast("B")) for name, value in tensors.items()} == before
    repository.sign("m", "1.1.0", key.private)
    swap(tensors, "m@1.1.0", repository=strict)


def test_exports_ask_for_signatures_too(
    tmp_path: Path, repository: Repository, model: Path, key: KeyPair
) -> None:
    repository.push(model, "m", "1.0.0")
    strict = Repository.open(tmp_path / "repository", signatures=SignaturePolicy.of([key.public_path]))
    with pytest.raises(SignatureRequiredError):
        export_oci(strict, "m", "1.0.0", tmp_path / "oci")
    with pytest.raises(SignatureRequiredError):
        export_snapshot(strict, "m", "1.0.0", "org/m", cache_dir=tmp_path / "hub")
    assert not (tmp_path / "oci").exists()
    assert not (tmp_path / "hub").exists()


def test_the_plain_functions_sign_and_ask(tmp_path: Path, model: Path, key: KeyPair) -> None:
    place = tmp_path / "plain"
    textnlp_fast.push(model, place, name="m", version="1.0.0", sign_key=key.private)
    textnlp_fast.push(model, place, name="m", version="1.1.0")
    policy = SignaturePolicy.of([key.public_path])
    textnlp_fast.pull(place, tmp_path / "out", name="m", version="1.0.0", signatures=policy)
    with pytest.raises(SignatureRequiredError):
        textnlp_fast.pull(place, tmp_path / "out", name="m", version="1.1.0", signatures=policy)


def test_settings_say_which_models_need_which_keys(
    tmp_path: Path,
    repository: Repository,
    model: Path,
    key: KeyPair,
    other_key: KeyPair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository.push(model, "release/m", "1.0.0", sign_key=other_key.private)
    repository.push(model, "draft/m", "1.0.0")
    rules = [
        {
            "models": "release/*",
            "public_keys": [str(key.public_path), str(other_key.public_path)],
            "threshold": 2,
        }
    ]
    monkeypatch.setenv("TEXTNLP_FAST_SIGNATURE_POLICY", json.dumps(rules))
    repository.pull("draft/m", "1.0.0", tmp_path / "draft")
    with pytest.raises(SignatureRequiredError, match=r"needs 2 of 2 signatures and has 1: .*key\.pub\.pem"):
        repository.pull("release/m", "1.0.0", tmp_path / "release")
    repository.sign("release/m", "1.0.0", key.private, files=model)
    repository.pull("release/m", "1.0.0", tmp_path / "release")


def test_the_same_key_twice_is_one_key(tmp_path: Path, key: KeyPair) -> None:
    copy = tmp_path / "copy.pem"
    copy.write_bytes(key.public_path.read_bytes())
    with pytest.raises(InvalidInputError, match="2 signatures are asked for, of 1 keys"):
        SignaturePolicy.of([key.public_path, copy], threshold=2)


def test_signing_is_recorded(signed: Repository) -> None:
    documents = [json.loads(signed.store.get(meta.key)) for meta in signed.store.list("audit")]
    assert [one["action"] for one in documents] == ["audit.begin", "sign", "push"]
