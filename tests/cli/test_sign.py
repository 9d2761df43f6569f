"""`textnlp-fast sign`, `push --sign-key` and `pull --require-signature`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography")
if shutil.which("openssl") is None:
    pytest.skip("no openssl to make keys with, as the guide does", allow_module_level=True)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key, made as the guide says; its public half lies beside it."""
    private, public = tmp_path / "key.pem", tmp_path / "key.pub.pem"
    for words in (
        ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private],
        ["ec", "-in", private, "-pubout", "-out", public],
    ):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)
    return private


def test_a_version_is_signed_and_pulled(
    run: Any, place: Path, models: Any, tmp_path: Path, key: Path
) -> None:
    public = tmp_path / "key.pub.pem"
    pull = (
        "pull",
        "m@1.0.0",
        tmp_path / "out",
        "--repo",
        place,
        "--require-signature",
        "--public-key",
        public,
    )
    outcome = run(*pull)
    assert outcome.code == 12
    assert "has not signed" in outcome.err
    assert not (tmp_path / "out").exists()
    bundle = tmp_path / "m.sig"
    signed = run("sign", "m@1.0.0", "--repo", place, "--key", key, "--files", models[0], "--bundle", bundle)
    assert signed.code == 0
    assert signed.out.startswith("m@1.0.0 signed by key ")
    assert json.loads(bundle.read_bytes())["mediaType"].startswith("application/vnd.dev.sigstore.bundle")
    assert run("sign", "m@1.0.0", "--repo", place, "--key", key, "--json").document["already_there"] is True
    assert run(*pull).code == 0


def test_a_push_signs(
    run: Any, models: Any, tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, public = tmp_path / "r", tmp_path / "key.pub.pem"
    assert run("push", models[0], "m@1.0.0", "--repo", place, "--sign-key", key).code == 0
    assert run("pull", "m@1.0.0", tmp_path / "a", "--repo", place, "--public-key", public).code == 0
    monkeypatch.setenv("TEXTNLP_FAST_SIGN_KEY", str(key))
    assert run("push", models[1], "m@1.1.0", "--repo", place).code == 0
    assert run("pull", "m@1.1.0", tmp_path / "b", "--repo", place, "--public-key", public).code == 0


def test_settings_decide_where_nothing_is_said(
    run: Any, place: Path, tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        run("pull", "m@1.0.0", tmp_path / "out", "--repo", place, "--require-signature").code == 2
    )  # whose?
    rules = [{"models": "m", "public_keys": [str(tmp_path / "key.pub.pem")]}]
    monkeypatch.setenv("TEXTNLP_FAST_SIGNATURE_POLICY", json.dumps(rules))
    assert run("pull", "m@1.0.0", tmp_path / "out", "--repo", place).code == 12
    assert run("sign", "m@1.0.0", "--repo", place, "--key", key).code == 0
    assert run("pull", "m@1.0.0", tmp_path / "out", "--repo", place, "--require-signature").code == 0


def test_mistakes_are_told(run: Any, place: Path, tmp_path: Path, key: Path) -> None:
    assert "no key" in run("sign", "m@1.0.0", "--repo", place).err
    assert run("sign", "m", "--repo", place, "--key", key).code == 2
    assert run("sign", "m@9.0.0", "--repo", place, "--key", key).code == 3
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    assert "no private key" in run("sign", "m@1.0.0", "--repo", place, "--key", junk).err
    assert (
        "no public key" in run("pull", "m@1.0.0", tmp_path / "o", "--repo", place, "--public-key", junk).err
    )
