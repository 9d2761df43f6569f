"""Configurations of all kinds are HAProxy's, by its own word; what would not be is refused before."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.adapter.gateway import Endpoint, GatewayPlan, inference_pool_manifests
from textnlp_fast.adapter.gateway.haproxy_config import haproxy_config
from textnlp_fast.adapter.gateway.plan import endpoint, key_digests
from textnlp_fast.cli.program import group
from textnlp_fast.errors import InvalidInputError

SOCKET = Path("/tmp/gateway/s")


@pytest.mark.parametrize("balance", ["least_loaded", "round_robin", "affinity"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"requests_per_minute": 10, "in_flight_per_replica": 3, "metrics": None, "agent": None},
        {"keys_file": True, "requests_per_minute": 10, "listen": Endpoint("::1", 8080)},
    ],
)
def test_haproxy_takes_it(haproxy: str, tmp_path: Path, balance: str, more: dict[str, Any]) -> None:
    if more.get("keys_file"):
        more = more | {"keys_file": tmp_path / "keys"}
        (tmp_path / "keys").write_text("A" * 64 + "\n")
    endpoints = (
        Endpoint("10.0.0.1", 8000),
        Endpoint("fd00::2", 8000),
        Endpoint("localhost", 8000),
    )
    plan = GatewayPlan(endpoints=endpoints, socket_path=SOCKET, slots=5, balance=balance, **more)
    path = tmp_path / "haproxy.cfg"
    path.write_text(haproxy_config(plan))
    said = subprocess.run(
        [haproxy, "-c", "-f", path], capture_output=True, text=True, timeout=60, check=False
    )
    assert said.returncode == 0, said.stderr
    assert "[WARNING]" not in said.stderr


@settings(max_examples=200)
@given(st.text(max_size=40))
def test_nothing_that_ends_a_word_gets_into_the_configuration(text: str) -> None:
    hostile = [
        lambda: Endpoint(text, 1),
        lambda: endpoint(text),
        lambda: GatewayPlan(endpoints=(), socket_path=SOCKET, affinity_header=text),
        lambda: GatewayPlan(endpoints=(), socket_path=SOCKET, health_path=text),
        lambda: GatewayPlan(endpoints=(), socket_path=Path("/" + text)),
    ]
    for make in hostile:
        try:
            made = make()
        except InvalidInputError:
            continue
        words = (
            [str(made)]
            if isinstance(made, Endpoint)
            else [made.affinity_header, made.health_path, str(made.socket_path)]
        )
        assert not any(c.isspace() or c in "'\"#\\{}$;" or ord(c) < 33 for word in words for c in word)


@pytest.mark.parametrize(
    "options",
    [
        {"slots": 0},
        {"slots": 5000},
        {"endpoints": (Endpoint("a", 1), Endpoint("a", 1))},
        {"balance": "best"},
        {"silence_s": 0},
        {"socket_path": Path("/" + "x" * 100)},
        {"request_limit_bytes": -1},
        {"requests_per_minute": -3},
    ],
)
def test_plans_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        GatewayPlan(**({"endpoints": (), "socket_path": SOCKET} | options))


def test_keys_are_digests() -> None:
    assert key_digests(["# ops", "", "ab" * 32 + "  # alice", "AB" * 32]) == ("AB" * 32,)
    with pytest.raises(InvalidInputError, match="line 2"):
        key_digests(["", "sk-secret"])


def test_an_open_gateway_is_for_this_machine_alone() -> None:
    said = CliRunner().invoke(group, ["gateway", "config", "--replica", "a:1", "--listen", "0.0.0.0:80"])
    assert isinstance(said.exception, InvalidInputError)
    said = CliRunner().invoke(group, ["gateway", "config", "--replica", "10.0.0.9:8000"])
    assert said.exit_code == 0, said.output
    assert "server slot1 10.0.0.9:8000" in said.output


def test_the_same_on_kubernetes() -> None:
    pool, route = inference_pool_manifests(
        "llm",
        namespace="serving",
        match_labels={"app": "llm"},
        gateway="inference",
        weights={"llm": 90, "llm-next": 10},
    )
    assert pool["spec"]["endpointPickerRef"]["name"] == "llm-epp"
    assert pool["spec"]["targetPorts"] == [{"number": 8000}]
    refs = route["spec"]["rules"][0]["backendRefs"]
    assert [(one["name"], one["weight"]) for one in refs] == [("llm", 90), ("llm-next", 10)]
    for wrong in (
        {"namespace": "A"},
        {"match_labels": {}},
        {"port": 0},
        {"weights": {"other": 1}},
        {"gateway": "a\nb"},
    ):
        with pytest.raises(InvalidInputError):
            inference_pool_manifests(
                "llm", **({"namespace": "serving", "match_labels": {"app": "llm"}, "gateway": "g"} | wrong)
            )
