"""The tokens file: made, read, changed under a running service, and refused where it is not what it should be."""

from __future__ import annotations

import asyncio
import hashlib
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.service.auth.principals import Role
from textnlp_fast.service.auth.tokens import new_token, read_tokens

Serving = Any


def test_a_token_is_known_by_its_digest_alone(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    token = new_token(file, "ci: release, {really} #1", Role.PUBLISHER, expires_at="2036-01-31T12:00:00Z")
    text = file.read_text()
    assert token not in text and token.removeprefix("tnf_") not in text
    (entry,) = read_tokens(file)
    assert entry.subject == "ci: release, {really} #1"
    assert entry.digest == hashlib.sha256(token.encode()).digest()
    assert entry.expires_s == pytest.approx(2085393600)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(token) >= 40


def test_many_make_tokens_at_once_and_none_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: new_token(file, f"user-{n}", Role.READER), range(40)))
    entries = {entry.digest: entry.subject for entry in read_tokens(file)}
    assert entries == {hashlib.sha256(token.encode()).digest(): f"user-{n}" for n, token in enumerate(made)}


def test_a_line_without_its_end_is_no_trap(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    new_token(file, "a", Role.READER)
    file.write_text("# who may\n" + file.read_text().rstrip("\n"))
    new_token(file, "b", Role.READER)
    assert [entry.subject for entry in read_tokens(file)] == ["a", "b"]


def test_one_subject_has_one_role(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    new_token(file, "a", Role.READER)
    new_token(file, "a", Role.READER)
    before = file.read_bytes()
    with pytest.raises(InvalidInputError, match="another role"):
        new_token(file, "a", Role.OPERATOR)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    [
        "tokens: []",
        "- reader",
        "- {subject: a, role: reader}",
        "- {subject: a, role: root, sha256: " + "0" * 64 + "}",
        "- {subject: a, role: reader, sha256: " + "G" * 64 + "}",
        "- {subject: '', role: reader, sha256: " + "0" * 64 + "}",
        '- {subject: "a\\nb", role: reader, sha256: ' + "0" * 64 + "}",
        "- {subject: a, role: reader, token: secret, sha256: " + "0" * 64 + "}",
        "- {subject: a, role: reader, expires_at: soon, sha256: " + "0" * 64 + "}",
        "- [",
        "[" * 5000,
        "\x00",
        "- !!python/object/apply:os.system [true]",
    ],
)
def test_a_file_that_is_none_is_refused_and_not_appended_to(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tokens.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInputError) as raised:
        read_tokens(file)
    assert "secret" not in str(raised.value)
    with pytest.raises(InvalidInputError):
        new_token(file, "a", Role.READER)
    assert file.read_text() == text


async def test_tokens_come_and_go_under_a_running_service(
    filled: Path, serving: Serving, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.yaml"
    first = new_token(file, "first", Role.READER)

    async def status(client: Any, token: str) -> int:
        return (await client.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"})).status_code

    async def until(client: Any, token: str, wanted: int) -> None:
        end = time.monotonic() + 60
        while (found := await status(client, token)) != wanted:
            assert time.monotonic() < end, found

    async with serving(filled, tokens=file, failure_burst=10_000, failures_per_s=10_000) as client:
        assert await status(client, first) == 200
        second = new_token(file, "second", Role.READER)
        await until(client, second, 200)
        kept = file.read_text().splitlines()[1]
        file.write_text("- {half of an entry")  # being edited: those before stay
        await asyncio.sleep(1.1)
        assert await status(client, second) == 200
        file.write_text(kept + "\n")
        await until(client, first, 401)  # taken out: out within a second
        assert await status(client, second) == 200
        file.unlink()
        await until(client, second, 401)


async def test_an_expired_token_lets_nobody_in(filled: Path, serving: Serving, tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    with pytest.raises(InvalidInputError, match="would have expired"):
        new_token(file, "a", Role.OPERATOR, expires_at="2020-01-31T12:00:00Z")
    assert not file.exists()
    old = new_token(file, "a", Role.OPERATOR, expires_at="2036-01-31T12:00:00Z")
    file.write_text(file.read_text().replace("2036", "2020"))
    async with serving(filled, tokens=file) as client:
        answer = await client.get("/api/v1/me", headers={"Authorization": f"Bearer {old}"})
        assert answer.status_code == 401
        assert "has expired" in answer.json()["detail"]


async def test_no_file_is_no_service(filled: Path, serving: Serving, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot read tokens"):
        async with serving(filled, tokens=tmp_path / "nothing.yaml"):
            pass
