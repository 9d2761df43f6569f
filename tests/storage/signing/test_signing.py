"""Versions are signed, and used only if they are; model-signing's own tools agree."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import textnlp_fast
from storage.signing.conftest import KeyPair, make_key, make_model
from textnlp_fast import load, swap
from textnlp_fast.contents.documents import canonical, seal_document
from textnlp_fast.errors import InvalidInputError, SignatureRequiredError
from textnlp_fast.storage import Repository
from textnlp_fast.storage.hub.exporting import export_snapshot
from textnlp_fast.storage.oci.exporting import export_oci
from textnlp_fast.storage.signing import PrivateKey, PublicKey, SignaturePolicy
from textnlp_fast.storage.signing.bundles import MAX_BUNDLE_BYTES, open_bundle

#: model-signing 1.1 needs pyOpenSSL and does not say so.
HAS_ORACLE = bool(find_spec("model_signing") and find_spec("OpenSSL"))


def bundle_of(repository: Repository) -> str:
    (place,) = (meta.key for meta in repository.store.list("signatures"))
    return place


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

    verify(key.public_path)
    with pytest.raises(ValueError, match="Key mismatch"):
        verify(other_key.public_path)
    (out / "config.json").write_text('{"hidden": true}')
    with pytest.raises(ValueError, match="Hash mismatch"):
        verify(key.public_path)
    (out / "config.json").write_text("{}")
    (out / "more.json").write_text("{}")
    with pytest.raises(ValueError, match="Extra files"):
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


# --- attacks ------------------------------------------------------------------------------------------------


@pytest.fixture
def signed(repository: Repository, model: Path, key: KeyPair) -> Repository:
    repository.push(model, "m", "1.0.0", sign_key=key.private)
    return repository


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


def test_signing_is_recorded(signed: Repository) -> None:
    documents = [json.loads(signed.store.get(meta.key)) for meta in signed.store.list("audit")]
    assert [one["action"] for one in documents] == ["audit.begin", "sign", "push"]


def test_the_bundle_is_what_its_reader_makes_of_it(signed: Repository, key: KeyPair) -> None:
    payload = json.loads(open_bundle(signed.store.get(bundle_of(signed)), key.public))
    names = [resource["name"] for resource in payload["predicate"]["resources"]]
    assert names == ["config.json", "empty.txt", "model.safetensors", "tokenizer/vocab.json"]
    assert payload["subject"][0]["name"] == "m@1.0.0"
