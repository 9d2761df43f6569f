"""How much, how large, and under which name: what is refused before anything is worked at."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.service.limits import Rates

Serving = Any
API = "/api/v1"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8470", 200),
        ("127.0.0.1", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8470", 200),
        ("attacker.example", 403),  # a page's own name that it lets point here
        ("attacker.example:8470", 403),
        ("127.0.0.1.attacker.example", 403),
        ("localhost.attacker.example", 403),
        ("0.0.0.0", 403),
        ("", 403),
        ("[::1", 400),
        ("[::1]x", 400),
        ("[::1]:port", 400),
        ("[127.0.0.1]]", 400),
        ("127.0.0.1:80:80", 400),
        ("127.0.0.1/x", 400),
        ("user@127.0.0.1", 400),
    ],
)
async def test_on_loopback_only_its_own_names_are_answered(
    filled: Path, serving: Serving, host: str, status: int
) -> None:
    async with serving(filled) as client:
        answer = await client.get(f"{API}/models", headers={"Host": host})
        assert answer.status_code == status
        assert (await client.get("/healthz", headers={"Host": host})).status_code == status


async def test_a_name_that_was_allowed_is_answered(
    filled: Path, serving: Serving, tokens: dict[str, Any]
) -> None:
    async with serving(filled, allowed_hosts=("Models.Example.org",)) as client:
        for host, status in (("models.example.org", 200), ("localhost", 200), ("example.org", 403)):
            assert (await client.get("/healthz", headers={"Host": host})).status_code == status
    async with serving(filled, host="0.0.0.0", tokens=tokens["file"]) as client:
        assert (await client.get("/healthz", headers={"Host": "any.example"})).status_code == 200
    async with serving(filled, host="0.0.0.0", tokens=tokens["file"], allowed_hosts=("a.example",)) as client:
        for host, status in (("any.example", 403), ("10.1.2.3:8470", 200), ("[fd00::1]:1", 200)):
            assert (await client.get("/healthz", headers={"Host": host})).status_code == status


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, False),
        ({"Origin": "http://127.0.0.1:8470"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, False),
        ({"Origin": "http://evil.example"}, True),
        ({"Origin": "http://127.0.0.1:9999"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": "http://[x"}, True),
        ({"Origin": "http://[::1"}, True),
        ({"Origin": "http://"}, True),
        ({"Origin": "\uff0fx://[".encode()}, True),
        ({"Origin": "127.0.0.1:8470"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
    ],
)
async def test_another_page_may_change_nothing(
    filled: Path, serving: Serving, headers: dict[str, Any], refused: bool
) -> None:
    async with serving(filled) as client:
        # Without a body, so that a browser would not ask first.
        answer = await client.post(f"{API}/audit/verify", headers=headers)
        assert (answer.status_code == 403) == refused
        if refused:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "UntrustedOrigin"


async def test_no_other_origin_is_let_to_read(filled: Path, serving: Serving) -> None:
    async with serving(filled) as client:
        answer = await client.options(
            f"{API}/models", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "GET"}
        )
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
        answer = await client.get(f"{API}/models", headers={"Origin": "http://evil.example"})
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


async def test_every_answer_says_how_it_may_be_used(filled: Path, serving: Serving) -> None:
    async with serving(filled) as client:
        for path in ("/healthz", f"{API}/models", "/metrics", "/api/v1/nothing"):
            headers = (await client.get(path)).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "DENY"
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert "server" not in headers


async def test_a_body_that_is_too_large_is_refused(filled: Path, serving: Serving) -> None:
    async with serving(filled, body_bytes=1000) as client:
        url = f"{API}/models/org/tiny/versions/1.0.0/stage"
        answer = await client.post(url, json={"stage": "staging", "note": "x" * 1000})
        assert (answer.status_code, answer.json()["code"]) == (413, "RequestTooLarge")

        async def parts() -> Any:  # without a length
            for _ in range(20):
                yield b" " * 100

        answer = await client.post(url, content=parts(), headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "RequestTooLarge")


async def test_where_a_request_ends_is_said_once(filled: Path, serving: Serving) -> None:
    async with serving(filled) as client:
        for headers, status in (
            ([("Content-Length", "2"), ("Transfer-Encoding", "chunked")], 400),
            ([("Content-Length", "2"), ("Content-Length", "3")], 400),
            ([("Content-Length", "-2")], 400),
            ([("Content-Length", "two")], 400),
            ([("Content-Length", "9" * 5000)], 413),  # more digits than Python makes a number of
            ([("Host", "127.0.0.1"), ("Host", "127.0.0.1")], 400),
        ):
            answer = await client.post(f"{API}/audit/verify", content=b"{}", headers=headers)
            assert answer.status_code == status, (headers[0][1][:20], answer.text)
            assert answer.headers["content-type"] == "application/problem+json"


async def test_a_target_that_is_too_long_is_refused(filled: Path, serving: Serving) -> None:
    async with serving(filled) as client:
        for target in (f"{API}/models/{'x' * (16 << 10)}", f"{API}/models?cursor={'x' * (16 << 10)}"):
            answer = await client.get(target)
            assert (answer.status_code, answer.json()["code"]) == (414, "TargetTooLong")
        answer = await client.get(f"{API}/models?search={'x' * (15 << 10)}")
        assert answer.status_code == 200


async def test_one_caller_cannot_ask_without_end(
    filled: Path, serving: Serving, tokens: dict[str, Any]
) -> None:
    async with serving(filled, tokens=tokens["file"], requests_per_s=0.01, request_burst=3) as client:
        who = {role: {"Authorization": f"Bearer {tokens[role]}"} for role in ("reader", "operator")}
        found = [(await client.get(f"{API}/me", headers=who["reader"])).status_code for _ in range(5)]
        assert found == [200, 200, 200, 429, 429]
        answer = await client.get(f"{API}/me", headers=who["reader"])
        assert answer.json()["code"] == "TooManyRequests"
        assert 1 <= int(answer.headers["Retry-After"]) <= 101
        assert (await client.get(f"{API}/me", headers=who["operator"])).status_code == 200  # others may
        assert (await client.get("/healthz")).status_code == 200


async def test_who_guesses_is_held_up_and_who_knows_is_not(
    filled: Path, serving: Serving, tokens: dict[str, Any]
) -> None:
    async with serving(filled, tokens=tokens["file"], failures_per_s=0.01, failure_burst=3) as client:
        wrong = {"Authorization": "Bearer tnf_" + "x" * 43}
        found = [(await client.get(f"{API}/me", headers=wrong)).status_code for _ in range(5)]
        assert found == [401, 401, 401, 429, 429]
        right = {"Authorization": f"Bearer {tokens['reader']}"}
        assert (await client.get(f"{API}/me", headers=right)).status_code == 200


def test_rates_refill_and_forget_who_is_long_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("textnlp_fast.service.limits.time.monotonic", lambda: now[0])
    rates = Rates(2.0, 3)
    assert [rates.take("a") for _ in range(3)] == [0, 0, 0]
    assert rates.take("a") == pytest.approx(0.5)
    assert rates.take("b") == 0
    now[0] += 0.5
    assert rates.take("a") == 0
    assert rates.take("a") > 0
    now[0] += 1000
    assert [rates.take("a") for _ in range(3)] == [0, 0, 0]
    assert rates.take("a") > 0
    for number in range(20_000):
        rates.take(f"caller {number}")
    assert len(rates._callers) == 10_000


async def test_calls_to_the_store_are_bounded_in_number_and_time() -> None:
    import threading  # noqa: PLC0415

    from textnlp_fast.service.blocking import Blocking  # noqa: PLC0415
    from textnlp_fast.service.problems import OverloadedError, ServiceTimeoutError  # noqa: PLC0415

    go = threading.Event()
    pool = Blocking("test", 2, 60.0, waiting=3)
    try:
        running = [asyncio.ensure_future(pool.run(go.wait, 60)) for _ in range(5)]
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError):
            await pool.run(go.wait, 60)
        with pytest.raises(OverloadedError):
            await pool.run(lambda: 1)
        running[0].cancel()  # who goes away gives no place free: the call runs
        await asyncio.sleep(0)
        assert pool.busy == 5
        go.set()
        assert [await each for each in running[1:]] == [True] * 4
        end = asyncio.get_running_loop().time() + 30
        while pool.busy:
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.01)
        go.clear()
        with pytest.raises(ServiceTimeoutError):
            await pool.run(go.wait, 60, timeout_s=0.05)
        assert pool.busy == 1
        go.set()

        def late() -> None:
            raise TimeoutError("of the call's own")

        with pytest.raises(TimeoutError, match="own"):
            await pool.run(late)
    finally:
        go.set()
        pool.close()
