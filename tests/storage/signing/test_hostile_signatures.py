"""Whoever may write to the bucket, and has no key, gets nobody to use what they wrote."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from storage.signing.conftest import KeyPair, bundle_of, make_model
from textnlp_fast.contents.documents import canonical, seal_document
from textnlp_fast.errors import InvalidInputError, SignatureRequiredError
from textnlp_fast.storage import Repository
from textnlp_fast.storage.signing import SignaturePolicy
from textnlp_fast.storage.signing.bundles import MAX_BUNDLE_BYTES, open_bundle


def refused(signed: Repository, key: KeyPair, tmp_path: Path, name: str = "m", version: str = "1.0.0") -> str:
    fresh = Repository.open(signed.url)
    with pytest.raises(SignatureRequiredError) as caught:
        fresh.pull(name, version, tmp_path / "out", signatures=SignaturePolicy.of([key.public_path]))
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_another_key_is_refused(signed: Repository, other_key: KeyPair, tmp_path: Path) -> None:
    assert "has not signed" in refused(signed, other_key, tmp_path)
    # even under the wanted key's name
    place = bundle_of(signed)
    folder = place.rpartition("/")[0]
    signed.store.put_object(f"{folder}/{other_key.public.id}.json", signed.store.get(place))
    assert "not made with this key" in refused(signed, other_key, tmp_path)


def changed_manifest(signed: Repository, change: Callable[[dict[str, Any]], None]) -> None:
    """What somebody does who may write to the bucket: a manifest of their own, properly sealed."""
    place = "models/m/versions/1.0.0.json"
    document = json.loads(signed.store.get(place))
    del document["digest"]
    change(document)
    signed.store.put_object(place, seal_document(document))


def test_a_manifest_with_other_files_is_refused(signed: Repository, key: KeyPair, tmp_path: Path) -> None:
    signed.push(make_model(tmp_path / "evil", 9), "evil", "1.0.0")
    evil = json.loads(signed.store.get("models/evil/versions/1.0.0.json"))

    def change(document: dict[str, Any]) -> None:
        document.update({name: evil[name] for name in ("contents", "files", "objects", "new_objects")})

    changed_manifest(signed, change)
    assert "has not signed these files" in refused(signed, key, tmp_path)


def test_a_manifest_that_only_names_tensors_otherwise_is_refused(
    signed: Repository, key: KeyPair, tmp_path: Path
) -> None:
    def change(document: dict[str, Any]) -> None:
        file = next(entry for entry in document["files"] if entry["path"] == "model.safetensors")
        (first, one), (second, two) = file["tensors"]
        file["tensors"] = [[second, one], [first, two]]

    changed_manifest(signed, change)
    assert "has not signed these files" in refused(signed, key, tmp_path)


def test_a_manifest_that_lacks_a_file_is_refused(signed: Repository, key: KeyPair, tmp_path: Path) -> None:
    changed_manifest(signed, lambda document: document["files"].pop())
    assert "has not signed these files" in refused(signed, key, tmp_path)


def test_how_files_are_stored_is_not_signed(signed: Repository, key: KeyPair, tmp_path: Path) -> None:
    """A version may be coded anew, against another base: its files are the same."""
    changed_manifest(signed, lambda document: document.update(message="coded anew", parent=None))
    Repository.open(signed.url).pull(
        "m", "1.0.0", tmp_path / "out", signatures=SignaturePolicy.of([key.public_path])
    )


@pytest.mark.parametrize("target", [("m", "2.0.0"), ("other", "1.0.0")])
def test_a_signature_of_another_version_or_model_is_refused_even_for_the_same_files(
    signed: Repository, model: Path, key: KeyPair, tmp_path: Path, target: tuple[str, str]
) -> None:
    name, version = target
    signed.push(model, name, version)
    place = bundle_of(signed)
    files, key_id = place.split("/")[-2:]
    signed.store.put_object(f"signatures/{name}/{version}/{files}/{key_id}", signed.store.get(place))
    assert "is that of m@1.0.0" in refused(signed, key, tmp_path, name, version)


def rebundled(signed: Repository, change: Callable[[dict[str, Any]], None]) -> None:
    place = bundle_of(signed)
    bundle = json.loads(signed.store.get(place))
    change(bundle)
    signed.store.put_object(place, canonical(bundle))


def test_a_payload_that_was_changed_is_refused(signed: Repository, key: KeyPair, tmp_path: Path) -> None:
    def change(bundle: dict[str, Any]) -> None:
        envelope = bundle["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"]).replace(b"1.0.0", b"6.6.6")
        envelope["payload"] = base64.b64encode(payload).decode()

    rebundled(signed, change)
    assert "not made with this key" in refused(signed, key, tmp_path)


def test_weaker_ways_to_sign_are_refused(signed: Repository, key: KeyPair, tmp_path: Path) -> None:
    """What older releases of model-signing made, another hash, another type of payload, two signatures."""
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415

    private = serialization.load_pem_private_key(key.private_path.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    original = signed.store.get(bundle_of(signed))
    kind = "application/vnd.in-toto+json"

    def pae(payload: bytes) -> bytes:
        return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)

    def signing(data: bytes, algorithm: hashes.HashAlgorithm) -> str:
        return base64.b64encode(private.sign(data, ec.ECDSA(algorithm))).decode()

    payload = base64.b64decode(json.loads(original)["dsseEnvelope"]["payload"])
    compat = f"DSSEV1 {len(kind)} {kind} {len(payload)} {payload!r}".encode()
    for data, algorithm in [
        (compat, hashes.SHA256()),
        (pae(payload), hashes.SHA1()),
        (pae(payload), hashes.SHA512()),
        (payload, hashes.SHA256()),
    ]:
        rebundled(
            signed,
            lambda b, d=data, a=algorithm: b["dsseEnvelope"]["signatures"][0].update(sig=signing(d, a)),
        )  # type: ignore[misc]
        assert "not made with this key" in refused(signed, key, tmp_path)
        signed.store.put_object(bundle_of(signed), original)
    rebundled(signed, lambda b: b["dsseEnvelope"].update(payloadType="text/plain"))
    assert "another type" in refused(signed, key, tmp_path)
    signed.store.put_object(bundle_of(signed), original)
    rebundled(signed, lambda b: b["dsseEnvelope"]["signatures"].append(b["dsseEnvelope"]["signatures"][0]))
    assert "does not have one signature" in refused(signed, key, tmp_path)
    for statement in (b'{"_type": "https://in-toto.io/Statement/v0.1"}', b"[]", b"{", b'{"predicate": 5}'):
        signed.store.put_object(bundle_of(signed), original)

        def change(bundle: dict[str, Any], statement: bytes = statement) -> None:
            bundle["dsseEnvelope"]["payload"] = base64.b64encode(statement).decode()
            bundle["dsseEnvelope"]["signatures"][0]["sig"] = signing(pae(statement), hashes.SHA256())

        rebundled(signed, change)  # signed by the right key, and not a statement of ours
        assert "does not hold" in refused(signed, key, tmp_path)


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"mediaType": 5}',
        b"\xff\xfe",
        b'{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}',
        b'{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{"payloadType":"application/vnd.in-toto+json","payload":"!!","signatures":[{"sig":"x"}]}}',
        b'{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{"payloadType":"application/vnd.in-toto+json","payload":"","signatures":[5]}}',
        b'{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{"payloadType":"application/vnd.in-toto+json","payload":"","signatures":[{"sig":""}]}}',
    ],
    ids=lambda junk: f"{len(junk)} bytes",
)
def test_a_hostile_bundle_is_refused_with_one_error(
    signed: Repository, key: KeyPair, tmp_path: Path, junk: bytes
) -> None:
    signed.store.put_object(bundle_of(signed), junk)
    assert "does not hold" in refused(signed, key, tmp_path)


def test_a_bundle_without_end_is_not_read(signed: Repository, key: KeyPair, tmp_path: Path) -> None:
    with (tmp_path / "repository" / bundle_of(signed)).open("wb") as file:
        file.truncate(MAX_BUNDLE_BYTES + 1)
    assert "too large" in refused(signed, key, tmp_path)


def test_what_lies_in_the_place_of_a_signature_is_told(signed: Repository, model: Path, key: KeyPair) -> None:
    signed.store.put_object(bundle_of(signed), b"{}")
    with pytest.raises(InvalidInputError, match=r"no signature of m@1\.0\.0"):
        signed.sign("m", "1.0.0", key.private, files=model)


def test_other_files_are_not_signed(signed: Repository, model: Path, key: KeyPair, tmp_path: Path) -> None:
    (model / "config.json").write_text('{"other": 1}')
    with pytest.raises(InvalidInputError, match=r"another config\.json"):
        signed.sign("m", "1.0.0", key.private, files=model)
    (model / "more.json").write_text("{}")
    with pytest.raises(InvalidInputError, match=r"with more\.json"):
        signed.sign("m", "1.0.0", key.private, files=model)


def test_the_bundle_is_what_its_reader_makes_of_it(signed: Repository, key: KeyPair) -> None:
    payload = json.loads(open_bundle(signed.store.get(bundle_of(signed)), key.public))
    names = [resource["name"] for resource in payload["predicate"]["resources"]]
    assert names == ["config.json", "empty.txt", "model.safetensors", "tokenizer/vocab.json"]
    assert payload["subject"][0]["name"] == "m@1.0.0"
