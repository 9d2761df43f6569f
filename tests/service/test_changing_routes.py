"""Changes over HTTP: what the registry holds afterwards, whose name it bears, and what the next reader sees."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from textnlp_fast.storage import Registry, Repository

API = "/api/v1/models/org/tiny"
NAME = "org/tiny"
Serving = Any


async def ask(
    client: Any, method: str, path: str, body: Any = None, status: int = 200, **headers: str
) -> Any:
    answer = await client.request(method, f"{API}{path}", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


async def test_what_a_publisher_says_is_in_the_registry_and_seen_at_once(
    own: Repository, serving: Serving, tokens: dict[str, Any]
) -> None:
    who = {"Authorization": f"Bearer {tokens['publisher']}"}
    # Nothing is looked at again by itself: what shows, shows because it was changed here.
    async with serving(own.url, tokens=tokens["file"], fresh_s=3600, stale_s=3600) as client:
        before = await ask(client, "GET", "/versions", **who)
        row = await ask(client, "POST", "/versions/1.1.0/stage", {"stage": "production", "note": "go"}, **who)
        assert (row["version"], row["stage"]) == ("1.1.0", "production")
        alias = await ask(client, "PUT", "/aliases/canary", {"version": "stage:production"}, **who)
        assert alias == {"alias": "canary", "version": "1.1.0", "protected": False}
        row = await ask(client, "PUT", "/versions/1.0.0/tags", {"eval/mmlu": "0.7"}, **who)
        assert row["tags"] == {"eval/mmlu": "0.7"}  # `team` went: PUT is all there is
        row = await ask(client, "PUT", "/versions/canary/pin", {"reason": "audited"}, **who)
        assert (row["version"], row["pinned"], row["pin_reason"]) == ("1.1.0", True, "audited")
        row = await ask(client, "DELETE", "/versions/1.0.0/pin", **who)
        assert row["pinned"] is False
        await ask(client, "DELETE", "/aliases/champion", status=204, **who)
        after = await ask(client, "GET", "/versions", **who)
        assert after != before
        seen = {each["version"]: each for each in after["items"]}
        assert seen["1.1.0"]["aliases"] == ["canary"]
        changes = (await ask(client, "GET", "/changes", **who))["items"]
        assert {each["actor"] for each in changes[:6]} == {"publisher-1"}
        models = (await client.get("/api/v1/models", headers=who)).json()["items"]
        assert next(each for each in models if each["name"] == NAME)["aliases"] == {"canary": "1.1.0"}
        audit = (await client.get("/api/v1/audit?limit=1", headers=who)).json()["items"]
        assert (audit[0]["actor"], audit[0]["verb"], audit[0]["subject"]) == (
            "publisher-1", "alias.delete", NAME
        )  # fmt: skip
    references = Registry(own, actor="x").references(NAME)
    assert references.stage_of("1.1.0") == "production"
    assert references.state_of("1.1.0").pinned == "audited"
    assert references.state_of("1.0.0").pinned is None
    assert dict(references.state_of("1.0.0").tags) == {"eval/mmlu": "0.7"}
    assert {name: alias.version for name, alias in references.aliases.items()} == {"canary": "1.1.0"}


async def test_deployments_roll_forth_and_back(own: Repository, serving: Serving) -> None:
    async with serving(own.url) as client:
        target = "/deployments/eu/serving-1"
        row = await ask(client, "POST", target, {"version": "2.0.0-rc.1", "note": "try"})
        assert (row["version"], row["previous"], row["by"]) == ("2.0.0-rc.1", ["1.1.0", "1.0.0"], "local")
        row = await ask(client, "PUT", f"{target}/state", {"state": "failed"})
        assert (row["state"], row["note"]) == ("failed", "try")
        row = await ask(client, "POST", f"{target}/rollback", {"to": "1.0.0"})
        assert (row["version"], row["previous"]) == ("1.0.0", [])
        problem = await ask(client, "POST", f"{target}/rollback", status=404)
        assert problem["code"] == "DeploymentNotFound"
        await ask(client, "POST", "/deployments/us", {"version": "champion", "expected": "1.0.0"}, 409)
        row = await ask(client, "POST", "/deployments/us", {"version": "champion"})
        assert row["version"] == "1.1.0"
        await ask(client, "DELETE", target, status=204)
        rows = (await client.get("/api/v1/deployments")).json()["items"]
        assert [each["target"] for each in rows] == ["us"]
        history = (await ask(client, "GET", f"{target}/history"))["items"]
        assert [each["kind"] for each in history[:3]] == ["deploy.end", "deploy.rollback", "deploy.state"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/versions/1.0.0/stage", {"stage": "production"}, 422, "InvalidInput"),
        ("POST", "/versions/1.0.0/stage", {"stage": "nowhere"}, 422, "InvalidInput"),
        ("POST", "/versions/1.0.0/stage", {"stage": "staging", "force": True}, 422, "InvalidInput"),
        ("POST", "/versions/1.0.0/stage", {}, 422, "InvalidInput"),
        ("POST", "/versions/9.9.9/stage", {"stage": "staging"}, 404, "VersionNotFound"),
        ("PUT", "/aliases/latest", {"version": "1.0.0"}, 422, "InvalidInput"),
        ("PUT", "/aliases/Upper", {"version": "1.0.0"}, 422, "InvalidInput"),
        ("PUT", "/aliases/champion", {"version": "1.0.0", "expected": "1.0.0"}, 409, "Conflict"),
        ("PUT", "/aliases/champion", {"version": "../1.0.0"}, 422, "InvalidInput"),
        ("DELETE", "/aliases/nobody", None, 404, "VersionNotFound"),
        ("PUT", "/versions/1.0.0/tags", {"a b": "x"}, 422, "InvalidInput"),
        ("PUT", "/versions/1.0.0/tags", {"a": "x\ny"}, 422, "InvalidInput"),
        ("PUT", "/versions/1.0.0/tags", {"a": 1}, 422, "InvalidInput"),
        ("PUT", "/versions/1.0.0/tags", ["a"], 422, "InvalidInput"),
        ("PUT", "/versions/1.0.0/pin", {"reason": "x" * 501}, 422, "InvalidInput"),
        ("POST", "/deployments/a%20b", {"version": "1.0.0"}, 422, "InvalidInput"),
        ("PUT", "/deployments/nowhere/state", {"state": "x"}, 404, "DeploymentNotFound"),
        ("POST", "/deployments/eu/serving-1/rollback", {"to": "2.0.0-rc.1"}, 404, "DeploymentNotFound"),
    ],
)
async def test_what_cannot_be_changes_nothing(
    filled: Any, serving: Serving, method: str, path: str, body: Any, status: int, code: str
) -> None:
    before = Registry(Repository.open(filled), actor="x").references(NAME)
    async with serving(filled) as client:
        problem = await ask(client, method, path, body, status)
        assert problem["code"] == code
    assert Registry(Repository.open(filled), actor="x").references(NAME) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "at character 2"),
        (b'{"stage": \n', "Expecting value at character 12"),
        (b'{"stage": "a\nb"}', "Invalid control character at character 13"),
        (b"{} {}", "Extra data at character 4"),
        (b" ", "Expecting value at character 2"),
        (b"[" * 200_000, "nested too deeply"),
        (b"\xff\xfe\xff", "is not UTF-16"),
        (b'{"stage": "\xff"}', "what is at byte 12 is not UTF-8"),
        (b'{"stage": ' + b"9" * 5000 + b"}", "too many digits"),
    ],
)
async def test_a_body_that_is_no_json_is_told_where(
    filled: Any, serving: Serving, content: bytes, said: str
) -> None:
    async with serving(filled) as client:
        answer = await client.post(
            f"{API}/versions/1.0.0/stage", content=content, headers={"Content-Type": "application/json"}
        )
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (400, "MalformedRequest"), problem
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["detail"].startswith("the body is no JSON: ") and said in problem["detail"]


async def test_json_that_is_no_request_is_refused(filled: Any, serving: Serving) -> None:
    async with serving(filled) as client:
        for content in (b'{"stage": NaN}', b'{"stage": ' + b"9" * 4000 + b"}", b"[]", b"null", b"7"):
            answer = await client.post(
                f"{API}/versions/1.0.0/stage", content=content, headers={"Content-Type": "application/json"}
            )
            assert (answer.status_code, answer.json()["code"]) == (422, "InvalidInput"), content[:20]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonp", 415),
        ("a/b/c", 415),
        ("", 415),
        (None, 415),
        ("Application/JSON; charset=utf-8", 200),
        ("application/merge-patch+json", 200),
    ],
)
async def test_a_body_must_say_that_it_is_json(
    own: Repository, serving: Serving, kind: str | None, status: int
) -> None:
    async with serving(own.url) as client:
        headers = {} if kind is None else {"Content-Type": kind}
        for url, body in (
            (f"{API}/versions/1.0.0/stage", b'{"stage": "staging"}'),
            (f"{API}/versions/1.0.0/pin", b'{"reason": "the paper"}'),  # a body that may be missing
        ):
            method = "PUT" if url.endswith("pin") else "POST"
            answer = await client.request(method, url, content=body, headers=headers)
            assert answer.status_code == status, answer.text
            if status == 415:
                problem = answer.json()
                assert answer.headers["content-type"] == "application/problem+json"
                assert problem["code"] == "UnsupportedMediaType" and "application/json" in problem["hint"]


async def test_who_may_not_is_told_so_before_the_body_is_judged(
    filled: Any, serving: Serving, tokens: dict[str, Any]
) -> None:
    async with serving(filled, tokens=tokens["file"]) as client:
        answer = await client.post(
            f"{API}/versions/1.0.0/stage", content=b"x", headers={"Content-Type": "text/plain"}
        )
        assert answer.status_code == 401


async def test_the_registry_s_own_rules_hold_for_subjects(
    own: Repository, serving: Serving, tokens: dict[str, Any]
) -> None:
    registry = Registry(own, actor="alice")
    rules = registry.rules()
    moves = tuple(
        replace(move, role="release") if move.target == "production" else move
        for move in rules.lifecycle.moves
    )
    registry.set_rules(
        replace(rules, lifecycle=replace(rules.lifecycle, moves=moves), roles={"release": ("alice",)})
    )
    who = {"Authorization": f"Bearer {tokens['publisher']}"}
    async with serving(own.url, tokens=tokens["file"]) as client:
        problem = await ask(client, "POST", "/versions/1.1.0/stage", {"stage": "production"}, 403, **who)
        assert problem["code"] == "NotAllowed"


async def test_many_at_once_make_one_history(own: Repository, serving: Serving) -> None:
    async with serving(own.url) as client:
        await asyncio.gather(
            *(
                ask(client, "PUT", f"/aliases/a{number}", {"version": "1.0.0" if number % 2 else "1.1.0"})
                for number in range(12)
            )
        )
        rows = {each["version"]: each for each in (await ask(client, "GET", "/versions"))["items"]}
        assert len(rows["1.0.0"]["aliases"]) == 6
        assert len(rows["1.1.0"]["aliases"]) == 7  # champion
    references = Registry(own, actor="x").references(NAME)
    numbers = [change.number for change in references.history]
    assert numbers == list(range(1, len(numbers) + 1))
