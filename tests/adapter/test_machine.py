"""A plain machine, as far as one can be had without booting it: scripts run, systemd reads units, notices are heard."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.plans import HOSTILE, SMALL, hostile_texts, plan_of
from free_ports import free_port
from textnlp_fast.adapter import Cache, Engine, HealthCheck, Model, Rollout, SecretRef, parse_deployment
from textnlp_fast.adapter.planning import DeploymentPlan, make_plan
from textnlp_fast.adapter.targets.instances import user_data
from textnlp_fast.adapter.targets.units import systemd_word
from textnlp_fast.storage import Repository

ENGINE = Path(__file__).parent / "stand_in_engine.py"
PATIENCE_S = 120.0


def until(what: Callable[[], Any]) -> Any:
    """What it gives, as soon as it is true."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            found = what()
        except OSError:
            found = None
        if found:
            return found
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def get(port: int, path: str) -> Any:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return json.load(answer)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Two versions of a model, the second by a few bytes other than the first."""
    opened = Repository.open(tmp_path / "repo of models", create=True)
    for version in ("1.0.0", "1.1.0"):
        folder = tmp_path / f"made-{version}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "version": version}))
        (folder / "vocabulary.txt").write_bytes(b"word " * 20_000 + version.encode())
        opened.push(folder, "org/llama", version)
    return opened


class Machine:
    """The files of user data below a folder, and the units' commands as processes."""

    def __init__(self, plan: DeploymentPlan, root: Path) -> None:
        self.root = root
        self.library = f"{root}/usr/local/lib/textnlp-fast"
        text = user_data(plan, cloud="aws", library=self.library)
        self.document = yaml.safe_load(text)
        self.units: dict[str, dict[str, list[str]]] = {}
        for one in self.document["write_files"]:
            path = Path(one["path"])
            if not path.is_relative_to(root):
                path = root / path.relative_to("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(one["content"])
            path.chmod(int(one["permissions"], 8))
            if path.suffix == ".service":
                self.units[path.stem.removeprefix("textnlp-fast-")] = lines_of(one["content"])
        programs = root / "bin"
        programs.mkdir()
        (programs / "textnlp-fast").write_text(f'#!/bin/sh\nexec {sys.executable} -m textnlp_fast.cli "$@"\n')
        (programs / "textnlp-fast").chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(root)}

    def start(self, unit: str, key: str = "ExecStart") -> subprocess.Popen[bytes]:
        (line,) = self.units[unit][key]
        return subprocess.Popen(words_of(line), env=self.environment, start_new_session=True)

    def run(self, unit: str, key: str = "ExecStart") -> int:
        return self.start(unit, key).wait(timeout=PATIENCE_S)


def lines_of(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            found.setdefault(key, []).append(value)
    return found


def words_of(line: str) -> list[str]:
    """A command line as systemd reads it (systemd.service, "Command lines"; systemd.syntax, "Quoting")."""
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    position = 0
    line = line.removeprefix("-")
    while position < len(line):
        one = line[position]
        if one == "\\":
            following = line[position + 1]
            assert word is not None or following
            word = word if word is not None else []
            word.append({"n": "\n", "t": "\t", "\\": "\\", '"': '"', "'": "'"}[following])
            position += 2
            continue
        if quote:
            if one == quote:
                quote = ""
            else:
                assert word is not None
                word.append(one)
        elif one in "\"'":
            quote, word = one, word if word is not None else []
        elif one in " \t":
            if word is not None:
                words.append("".join(word))
            word = None
        else:
            word = word if word is not None else []
            word.append(one)
        position += 1
    assert not quote
    if word is not None:
        words.append("".join(word))
    # Specifiers and variables; none but the doubled signs may be left.
    for each in words:
        assert "%" not in each.replace("%%", "") and "$" not in each.replace("$$", ""), each
    return [each.replace("%%", "%").replace("$$", "$") for each in words]


@pytest.fixture
def plan(repository: Repository, tmp_path: Path) -> DeploymentPlan:
    """A deployment of the stand-in, with texts that break careless scripts."""
    place = tmp_path / "node's models %i $HOME"
    deployment = replace(
        parse_deployment(SMALL),
        model=Model(reference="org/llama@1.0.0", repository=str(tmp_path / "repo of models")),
        engine=Engine(
            kind="openai",
            command=(sys.executable, str(ENGINE), "serve", "{model_dir}", "--port", "{port}"),
            arguments=HOSTILE[:12],
            environment={"NOTE": "$(touch owned) %h 'x'\n\"y\""},
            port=free_port(),
            start_s=PATIENCE_S,
            drain_s=60,
        ),
        cache=Cache(path=str(place), kind="host-path"),
        rollout=Rollout(health=HealthCheck(interval_s=0.2, timeout_s=10, success_after=2)),
    )
    return make_plan(deployment, repository)


def test_a_machine_fetches_serves_and_drains(
    plan: DeploymentPlan, tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the script that waits uses curl")
    machine = Machine(plan, tmp_path / "root")
    port = plan.deployment.engine.port
    assert machine.run("chat-fetch") == 0
    folder = Path(plan.deployment.cache.path) / "org/llama/1.0.0"
    assert (folder / "vocabulary.txt").read_bytes() == (tmp_path / "made-1.0.0/vocabulary.txt").read_bytes()

    engine = machine.start("chat")
    started.append(engine)
    assert machine.run("chat", "ExecStartPost") == 0
    said = get(port, "/started-with")
    assert said["words"][1] == str(folder) and said["words"][4:] == list(HOSTILE[:12])
    assert said["note"] == "$(touch owned) %h 'x'\n\"y\""
    assert not list(Path.cwd().glob("owned")) and not (tmp_path / "owned").exists()

    # A request is under way: the drain waits for it, and no longer.
    asked = threading.Event()
    answer: list[bytes] = []

    def ask() -> None:
        body = json.dumps({"prompt": "hello", "sleep_s": 4}).encode()
        asked.set()
        with urlopen(
            Request(f"http://127.0.0.1:{port}/v1/completions", data=body), timeout=PATIENCE_S
        ) as got:
            answer.append(got.read())

    client = threading.Thread(target=ask)
    script = Path(machine.library, "chat", "drain")
    script.write_text(script.read_text().replace("NOTICE_S=5", "NOTICE_S=1"))
    client.start()
    asked.wait(timeout=PATIENCE_S)
    assert machine.run("chat", "ExecStop") == 0
    client.join(timeout=PATIENCE_S)
    assert json.loads(answer[0])["choices"][0]["text"] == "echo: hello"
    os.killpg(engine.pid, signal.SIGTERM)
    assert engine.wait(timeout=PATIENCE_S) == -signal.SIGTERM


def test_the_next_version_takes_what_the_node_has(
    plan: DeploymentPlan, repository: Repository, tmp_path: Path
) -> None:
    machine = Machine(plan, tmp_path / "root")
    assert machine.run("chat-fetch") == 0
    model = replace(plan.deployment.model, reference="org/llama@1.1.0")
    later = make_plan(replace(plan.deployment, model=model), repository, serving="1.0.0")
    assert later.version.from_version == "1.0.0"
    assert later.version.from_bytes is not None and later.version.from_bytes <= later.version.fetch_bytes
    other = Machine(later, tmp_path / "later")
    assert other.run("chat-fetch") == 0
    folder = Path(plan.deployment.cache.path) / "org/llama"
    assert sorted(one.name for one in folder.iterdir()) == ["1.0.0", "1.1.0"]
    assert (folder / "1.1.0/vocabulary.txt").read_bytes() == (
        tmp_path / "made-1.1.0/vocabulary.txt"
    ).read_bytes()


def test_a_machine_with_an_agent_serves_what_the_agent_fetched(
    plan: DeploymentPlan, tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    agent = free_port()
    machines = replace(plan.deployment.machines, agent_port=agent)
    managed = replace(plan, deployment=replace(plan.deployment, machines=machines))
    machine = Machine(managed, tmp_path / "root")
    assert set(machine.units) == {"chat", "chat-notice"}
    script = Path(machine.library, "chat", "engine")
    text = script.read_text()
    assert "--host 0.0.0.0" in text
    token = tmp_path / "root/agent-token"
    token.write_text("0123456789abcdef0123456789abcdef\n")
    script.write_text(text.replace("/etc/textnlp-fast/secrets/agent-token", str(token)))
    running = machine.start("chat")
    started.append(running)
    port = plan.deployment.engine.port
    said = until(lambda: get(port, "/started-with"))
    folder = Path(plan.deployment.cache.path) / "org/llama/versions/1.0.0"
    assert said["words"][1] == str(folder) and said["words"][4:] == list(HOSTILE[:12])
    assert said["note"] == "$(touch owned) %h 'x'\n\"y\""
    ask = Request(
        f"http://127.0.0.1:{agent}/v1/state", headers={"Authorization": f"Bearer {token.read_text().strip()}"}
    )
    with urlopen(ask, timeout=PATIENCE_S) as answer:
        assert json.load(answer)["serving"] == "1.0.0"
    with pytest.raises(HTTPError, match="401"):
        urlopen(f"http://127.0.0.1:{agent}/v1/state", timeout=PATIENCE_S)
    # Ended as systemd ends it, the agent takes the engine with it.
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=PATIENCE_S) == 0
    with pytest.raises(OSError):
        get(port, "/health")


def test_fetches_wait_for_each_other_and_go_on_after_a_kill(
    plan: DeploymentPlan, tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    machine = Machine(plan, tmp_path / "root")
    killed = machine.start("chat-fetch")
    time.sleep(0.3)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait(timeout=PATIENCE_S)
    both = [machine.start("chat-fetch"), machine.start("chat-fetch")]
    started += both
    assert [one.wait(timeout=PATIENCE_S) for one in both] == [0, 0]
    folder = Path(plan.deployment.cache.path) / "org/llama/1.0.0"
    assert (folder / "vocabulary.txt").read_bytes() == (tmp_path / "made-1.0.0/vocabulary.txt").read_bytes()


def test_a_fetch_that_cannot_succeed_says_so(plan: DeploymentPlan, tmp_path: Path) -> None:
    model = replace(plan.deployment.model, repository=str(tmp_path / "nowhere"))
    gone = replace(plan, deployment=replace(plan.deployment, model=model))
    assert Machine(gone, tmp_path / "root").run("chat-fetch") == 3


def test_an_engine_that_never_answers_is_found_out(plan: DeploymentPlan, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the script that waits uses curl")
    engine = replace(plan.deployment.engine, start_s=0.5)
    never = replace(plan, deployment=replace(plan.deployment, engine=engine))
    machine = Machine(never, tmp_path / "root")
    assert machine.run("chat", "ExecStartPost") == 1
    script = Path(machine.library, "chat", "health")
    assert subprocess.run([str(script)], timeout=PATIENCE_S, check=False).returncode == 1


@pytest.mark.parametrize("image", [None, "example.com/engine:1"])
def test_systemd_reads_the_units(image: str | None, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd-analyze")
    deployment = parse_deployment(SMALL)
    engine = Engine(command=("true",), image=image, secrets={"HF_TOKEN": SecretRef(name="hf", key="token")})
    machine = Machine(plan_of(replace(deployment, engine=engine)), tmp_path / "root")
    folder = tmp_path / "root/etc/systemd/system"
    units = sorted(folder.glob("*.service"))
    assert len(units) == 4
    if image is not None:
        # It looks for the program, which need not be here.
        program = tmp_path / "root/bin/docker"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        for one in units:
            one.write_text(one.read_text().replace("-docker rm", f"-{program} rm"))
    # Units that they lean on are not those of this machine.
    others = "".join(f"[Unit]\nDescription={name}\n" for name in ("network-online",))
    (folder / "network-online.target").write_text(others)
    done = subprocess.run(
        [analyze, "verify", "--man=no", *map(str, units)],
        env={**machine.environment, "SYSTEMD_UNIT_PATH": f"{folder}:"},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "textnlp-fast" in line]
    assert not ours, ours
    # And it does complain where there is something to complain of.
    units[0].write_text(units[0].read_text().replace("Type=", "Tpye="))
    again = subprocess.run(
        [analyze, "verify", "--man=no", str(units[0])],
        env={**machine.environment, "SYSTEMD_UNIT_PATH": f"{folder}:"},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert "Tpye" in again.stderr


@settings(max_examples=80)
@given(words=st.lists(hostile_texts(), min_size=1, max_size=5))
def test_words_of_units_come_back(words: list[str]) -> None:
    line = " ".join(systemd_word(word) for word in words)
    assert "\n" not in line
    assert words_of(line) == words
