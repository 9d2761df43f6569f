"""The commands, with the gateway that is shipped: HAProxy in front, replicas behind, and a load through it."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapter.rollout.balancer import Load
from adapter.rollout.fleet import Fleet, publish, until
from adapter.rollout.processes import MODEL, TOKEN
from free_ports import free_port
from textnlp_fast.adapter.gateway.runtime import Gateway
from textnlp_fast.adapter.rollout.records import read_record
from textnlp_fast.adapter.rollout.traffic import NoGateway, Traffic
from textnlp_fast.cli.deploy.rolling import print_record
from textnlp_fast.cli.program import run

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="no haproxy on this machine")


class Front:
    """What the load asks of a balancer, of an address that balances itself."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.weights: dict[str, int] = {}
        self.drained: set[str] = set()
        self.least = 0

    def pick(self, chance: random.Random) -> str:
        return self.address

    def done(self, name: str) -> None:
        pass


class Served:
    """A fleet behind HAProxy, with the files that the commands take."""

    def __init__(self, folder: Path) -> None:
        repository = str(folder / "repository")
        self.known = {
            "1.0.0": publish(repository, "1.0.0", 1),
            "2.0.0": publish(repository, "2.0.0", 2),
            "3.0.0-bad": publish(repository, "3.0.0-bad", 3, health=1.0),
        }
        self.fleet = Fleet(folder, self.known, count=3, target="chat")
        self.fleet.load.stop()
        address = f"127.0.0.1:{free_port()}"
        command = [
            sys.executable,
            "-m",
            "textnlp_fast.cli",
            "gateway",
            "run",
            "--folder",
            str(folder / "gateway"),
        ]
        command += [
            "--listen",
            address,
            "--metrics",
            f"127.0.0.1:{free_port()}",
            "--agent-port",
            str(free_port()),
        ]
        command += [part for name in self.fleet.names for part in ("--replica", name)]
        self.gateway = subprocess.Popen(command)
        until(
            lambda: (
                bool(list((folder / "gateway").glob("*.sock"))) if (folder / "gateway").exists() else False
            )
        )
        (self.socket,) = (folder / "gateway").glob("*.sock")
        until(
            lambda: sum(slot.address is not None and slot.is_up for slot in Gateway(self.socket).slots()) == 3
        )
        self.load = Load(Front(address), self.known)  # type: ignore[arg-type]
        made = self.fleet.made("")
        rows = [{"serves": name, "agent": agent} for name, agent in made["replicas"]]
        self.agents = folder / "agents.yaml"
        self.agents.write_text(yaml.safe_dump({"replicas": rows}))
        self.token = folder / "token"
        self.token.write_text(f"{TOKEN}\n")
        self.description = folder / "chat.yaml"
        described = {
            "name": "chat",
            "model": {"reference": f"{MODEL}@2.0.0", "repository": repository},
            "rollout": {
                "strategy": "canary",
                "steps": [30, 100],
                "max_unavailable": 1,
                "max_surge": 0,
                "bake_s": 0.5,
                "hot_swap": True,
                "health": {"interval_s": 0.2, "failures": 2, "timeout_s": 30},
            },
        }
        self.description.write_text(yaml.safe_dump(described))

    def verb(self, verb: str, *more: str) -> int:
        words = ["deploy", verb, str(self.description), "--agents", str(self.agents)]
        words += ["--token-file", str(self.token), "--gateway", str(self.socket), *more]
        with pytest.raises(SystemExit) as ended:
            run(words)
        return int(ended.value.code or 0)

    def settle(self) -> dict[str, int]:
        self.load.answers.clear()
        until(lambda: sum(self.load.answers.values()) > 30)
        assert not self.load.wrong, self.load.wrong[:3]
        return dict(self.load.answers)

    def close(self) -> None:
        self.load.stop()
        self.gateway.send_signal(signal.SIGTERM)
        self.gateway.wait(60)
        self.fleet.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("commands"))
    yield made
    made.close()


def document(text: str) -> Any:
    return json.loads(text)


def test_the_shipped_gateway_is_what_rollouts_ask_for() -> None:
    gateway: Traffic = Gateway(Path("/nowhere.sock"))
    assert isinstance(gateway, Traffic)
    assert isinstance(NoGateway(), Traffic)


def test_apply_status_and_rollback(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert served.verb("apply", "--note", "by hand", "--json") == 0
    said = document(capsys.readouterr().out)
    assert (said["phase"], said["from"], said["to"], said["over"]) == ("succeeded", "1.0.0", "2.0.0", True)
    assert set(served.settle()) == {"2.0.0"}

    capsys.readouterr()
    assert served.verb("apply") == 0
    assert "every replica serves 2.0.0 already: nothing to do" in capsys.readouterr().out
    assert served.verb("apply", "--json") == 0
    assert document(capsys.readouterr().out)["changed"] is False
    assert served.verb("apply", "--again", "--json") == 0
    again = document(capsys.readouterr().out)
    assert (again["number"], again["from"], again["to"]) == (said["number"] + 1, "2.0.0", "2.0.0")

    assert served.verb("status", "--json") == 0
    said = document(capsys.readouterr().out)
    assert {(row["serving"], row["place"], row["weight"]) for row in said["replicas"]} == {
        ("2.0.0", "in", 100)
    }
    assert (said["registry"]["version"], said["agree"]) == ("2.0.0", True)
    assert served.verb("status") == 0
    shown = capsys.readouterr()
    assert "canary from 2.0.0 to 2.0.0, succeeded" in shown.out
    assert "registry: chat serves 2.0.0, healthy" in shown.out
    assert shown.err == "asking 3 agents\n"
    served.fleet.registry.deploy(MODEL, "1.0.0", "chat")
    assert served.verb("status") == 0
    told = capsys.readouterr().out
    assert "they differ from the registry: " in told and told.count(" 2.0.0") >= 3
    served.fleet.registry.rollback(MODEL, "chat", to="2.0.0")

    assert served.verb("rollback", "--note", "it was better") == 0
    assert "to 1.0.0, succeeded" in capsys.readouterr().out
    assert set(served.settle()) == {"1.0.0"}


def test_a_version_that_is_unwell_goes_back_and_says_so(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert served.verb("apply", "--version", "3.0.0-bad") == 1
    said = capsys.readouterr()
    assert "rolled-back" in said.out
    assert "/health answers 503" in said.out
    record, _ = read_record(served.fleet.registry.repository.store, MODEL, "chat")
    assert record is not None
    # To have gone back is what whoever asks for that wants, unless it was the way back that failed.
    assert print_record(record, as_json=False) == 1
    assert print_record(record, as_json=False, is_back_wanted=True) == 0
    failed = replace(record, kind="rollback")
    assert print_record(failed, as_json=False, is_back_wanted=True) == 1
    stuck = replace(record, state=replace(record.state, phase="stuck"))
    capsys.readouterr()
    assert print_record(stuck, as_json=False, is_back_wanted=True) == 1
    assert "next: " in (told := capsys.readouterr().out) and "--version 1.0.0" in told
    assert set(served.settle()) == {"1.0.0"}
    assert all(not slot.is_draining and slot.is_up for slot in Gateway(served.socket).slots() if slot.address)


def test_what_is_wrong_with_files_is_named(
    served: Served, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    good = served.agents
    for text, wrong in (
        ("replicas: []", "no list of replicas"),
        ("replicas: [{serves: x, agent: 'http://127.0.0.1:1'}]", "replicas[0].serves"),
        ("replicas: [{serves: '127.0.0.1:1', agent: 'ftp://x'}]", "replicas[0].agent"),
        ("replicas: [{serves: '127.0.0.1:1', agent: 'http://h:1', spare: 1}]", "replicas[0].spare"),
        ("replicas: [{serves: '127.0.0.1:1', agent: 'http://h:1', more: 1}]", "may have spare"),
        ("replicas: [{serves: '127.0.0.1:1', agent: 'http://h:1', spare: true}]", "spare replicas only"),
        ("{", "cannot be read"),
    ):
        served.agents = tmp_path / "agents.yaml"
        served.agents.write_text(text)
        assert served.verb("apply") == 2
        assert wrong in capsys.readouterr().err
    served.agents = good
    assert served.verb("apply", "--version", "9.9.9") == 3
    assert served.verb("rollback", "--to", "9.9.9") == 3
