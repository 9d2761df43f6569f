"""Models across the nodes of a real Ray cluster on this machine; workers, nodes and drivers are killed meanwhile."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from delta.models import Model, Tensor, files_of, nudged, tree, weights, write
from textnlp_fast.errors import (
    InvalidInputError,
    LoadTimeoutError,
    VersionExistsError,
    VersionNotFoundError,
)
from textnlp_fast.integrations.ray_shards import Cluster, TaskLostError, push, restore, verify
from textnlp_fast.integrations.ray_shards.running import Job
from textnlp_fast.storage import Repository, TransferOptions
from textnlp_fast.storage.pull_record import RECORD_NAME

ray: Any = pytest.importorskip("ray")
cluster_utils: Any = pytest.importorskip("ray.cluster_utils")

HERE = Path(__file__).parent
OPTIONS = TransferOptions(shard_bytes=1 << 16, threads=1)
NODES = 2
# Of this machine alone; Ray puts an outward address in the place of 127.0.0.1.
LOOPBACK = "127.0.0.2"


@dataclass
class Machines:
    """The cluster: a head that runs nothing, and nodes of one processor."""

    cluster: Any
    nodes: list[Any]

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self) -> None:
        self.nodes.append(
            self.cluster.add_node(num_cpus=1, object_store_memory=80 << 20, node_ip_address=LOOPBACK)
        )

    @property
    def raylets(self) -> set[int]:
        """Their process ids: a node's workers are its raylet's children."""
        return {each.process.pid for node in self.nodes for each in node.all_processes["raylet"]}

    def kill(self) -> None:
        """Ends a node, its raylet first."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    # Sockets of Ray's have long names below this folder: the names of pytest's are too long for them.
    temporary = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(
            "PYTHONPATH", os.pathsep.join([str(HERE.parents[1]), *(path for path in sys.path if path)])
        )
        patched.setenv("RAY_TMPDIR", temporary)
        (Path(temporary) / "ray").mkdir()
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        patched.setenv("RAY_prestart_worker_first_driver", "0")
        cluster = cluster_utils.Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "node_ip_address": LOOPBACK,
                "object_store_memory": 80 << 20,
                "include_dashboard": False,
                "_system_config": {
                    "health_check_initial_delay_ms": 1000,
                    "health_check_period_ms": 1000,
                    "health_check_timeout_ms": 10_000,
                    "health_check_failure_threshold": 5,
                },
            },
        )
        machines = Machines(cluster, [])
        try:
            for _ in range(NODES):
                machines.add()
            ray.init(
                address=cluster.address,
                logging_level="warning",
                log_to_driver=False,
                _node_ip_address=LOOPBACK,
            )
            yield machines
        finally:
            ray.shutdown()
            cluster.shutdown()
            shutil.rmtree(temporary, ignore_errors=True)


def model_of(seed: int, *, rows: int = 64, shards: int = 3) -> Model:
    model: Model = {
        f"model-{shard:05}.safetensors": {
            f"layers.{shard}.{name}.weight": weights(100 * seed + 10 * shard + number, rows)
            for number, name in enumerate(("q", "k", "v"))
        }
        for shard in range(shards)
    }
    return model | {"config.json": b'{"hidden_size": 128}', "tokenizer/vocab.txt": b"one\ntwo\n"}


def next_of(model: Model) -> Model:
    """The next version: some tensors nudged."""
    new: Model = {}
    for path, content in model.items():
        new[path] = (
            content
            if isinstance(content, bytes)
            else {name: nudged(each, 5) if ".q." in name else each for name, each in content.items()}
        )
    return new


def restored(folder: Path) -> dict[str, bytes]:
    return {path: data for path, data in tree(folder).items() if path != RECORD_NAME}


@pytest.mark.usefixtures("machines")
def test_there_and_back(tmp_path: Path) -> None:
    repository = str(tmp_path / "repo")
    old = model_of(1)
    new = next_of(old)
    first = push("textnlp://m@1.0.0", write(old, tmp_path / "old"), repository=repository, part_bytes=20_000)
    assert (first.files, first.tensors, first.already_there) == (5, 9, False)
    second = push(
        "textnlp://m@1.1.0",
        write(new, tmp_path / "new"),
        repository=repository,
        part_bytes=20_000,
        message="more",
    )
    assert second.parent == "m@1.0.0" and second.new_contents == 3
    assert second.stored_bytes < first.stored_bytes / 3
    # What one process pushes is the same version: neither stores anything of the other's again.
    local = Repository.open(repository)
    assert local.push(tmp_path / "new", "m", "1.1.0").already_there
    assert push("textnlp://m@1.1.0", tmp_path / "new", repository=repository).already_there
    with pytest.raises(VersionExistsError):
        push("textnlp://m@1.1.0", tmp_path / "old", repository=repository)
    assert local.manifest("m", "1.1.0").message == "more"
    assert local.verify().ok
    heard: list[int] = []
    report = restore(
        "textnlp://m",
        tmp_path / "out",
        repository=repository,
        part_bytes=30_000,
        progress=lambda step: heard.append(step.done_bytes),
    )
    assert report.tasks > 3 and report.version == "1.1.0"
    assert restored(tmp_path / "out") == files_of(new)
    assert sorted(heard) == heard and heard[-1] == report.raw_bytes
    # An older one in its place, and what a pull finds there is what it would have made.
    restore("textnlp://m@1.0.0", tmp_path / "out", repository=repository)
    assert restored(tmp_path / "out") == files_of(old)
    assert local.pull("m", "1.0.0", tmp_path / "out").fetched_bytes == 0


@pytest.mark.usefixtures("machines")
def test_the_guide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its first example, here: on this cluster, in folders."""
    guide = HERE.parents[2] / "docs" / "guide" / "ray.md"
    example = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)[0]
    for theirs, ours in (
        ('ray.init("auto")\n', ""),
        ("s3://bucket/models", str(tmp_path / "repo")),
        ("/shared/", f"{tmp_path}/"),
    ):
        assert theirs in example
        example = example.replace(theirs, ours)
    write(model_of(5), tmp_path / "checkpoint")
    exec(compile(example, str(guide), "exec"), {})
    assert capsys.readouterr().out == "()\n"
    assert restored(tmp_path / "serving") == files_of(model_of(5))


@pytest.mark.usefixtures("machines")
def test_damage_is_found(tmp_path: Path) -> None:
    repository = str(tmp_path / "repo")
    push("textnlp://m@1.0.0", write(model_of(2), tmp_path / "m"), repository=repository, options=OPTIONS)
    assert verify("textnlp://m", repository=repository, part_bytes=20_000).ok
    shards = sorted(
        (path for path in (tmp_path / "repo/objects").rglob("*") if path.is_file()), key=os.path.getsize
    )
    data = bytearray(shards[-1].read_bytes())
    data[len(data) // 2] ^= 0x11
    shards[-1].chmod(0o644)
    shards[-1].write_bytes(data)
    report = verify("textnlp://m", repository=repository, part_bytes=20_000)
    assert not report.ok and all("layers." in what for what, _ in report.problems)
    local = Repository.open(repository).verify("m", "1.0.0")
    assert not local.ok
    with pytest.raises(Exception, match=r"layers\."):
        restore("textnlp://m", tmp_path / "out", repository=repository)
    assert not (tmp_path / "out").exists()


def test_files_that_lie_on_their_nodes(machines: Machines, tmp_path: Path) -> None:
    """What each node has is pushed by it, and goes back to it. Here all of them see one disk, so it is looked where."""
    repository = str(tmp_path / "repo")
    model = model_of(3)
    source = write(model, tmp_path / "m")
    ids = [node.node_id for node in machines.nodes]
    nodes = {path: ids[number % len(ids)] for number, path in enumerate(sorted(model))}
    push("textnlp://m@1.0.0", source, repository=repository, nodes=nodes)
    some = {path: node for path, node in nodes.items() if path.endswith(".safetensors")}
    report = restore("textnlp://m", tmp_path / "out", repository=repository, nodes=some)
    assert report.files == len(some)
    assert tree(tmp_path / "out") == {path: data for path, data in files_of(model).items() if path in some}
    seen = Cluster().run([Job(_where, (), node) for node in ids])
    assert seen == ids
    for unknown in ("0" * 56, "node-7", ""):
        with pytest.raises(InvalidInputError, match="has no node") as refused:
            restore(
                "textnlp://m", tmp_path / "out", repository=repository, nodes=dict.fromkeys(some, unknown)
            )
        assert ids[0] in refused.value.hint
    with pytest.raises(InvalidInputError, match="no file"):
        restore("textnlp://m", tmp_path / "out", repository=repository, nodes={"none": ids[0]})
    with pytest.raises(InvalidInputError, match="has no"):
        push("textnlp://m@1.1.0", source, repository=repository, nodes={"none.safetensors": ids[0]})
    assert Repository.open(repository).versions("m") == ["1.0.0"]


def _where() -> str:
    return str(ray.get_runtime_context().get_node_id())


def test_only_this_machine_reaches_the_cluster(machines: Machines) -> None:
    addresses = {node["NodeManagerAddress"] for node in ray.nodes()}
    assert addresses == {LOOPBACK}
    assert machines.address.startswith(f"{LOOPBACK}:")


def test_what_is_refused(machines: Machines, tmp_path: Path) -> None:
    repository = str(tmp_path / "repo")
    source = write(model_of(4, shards=1), tmp_path / "m")
    with pytest.raises(InvalidInputError, match="which version"):
        push("textnlp://m@champion", source, repository=repository)
    assert not (tmp_path / "repo" / "models").exists()
    push("textnlp://m@1.0.0", source, repository=repository)
    with pytest.raises(VersionNotFoundError):
        restore("textnlp://m@2.0.0", tmp_path / "out", repository=repository)
    with pytest.raises(InvalidInputError, match="path out"):
        restore("textnlp://m@1.0.0/config.json", tmp_path / "out", repository=repository)
    with pytest.raises(InvalidInputError, match="relative"):
        restore("textnlp://m", "out", repository=repository, nodes={"config.json": "0"})
    with pytest.raises(LoadTimeoutError):
        Cluster(timeout_s=1).run([Job(_sleep, ())])
    for where in (None, machines.nodes[0].node_id):
        with pytest.raises(InvalidInputError, match=r"100 CPUs.*: 1 are there"):
            Cluster(cpus=100).run([Job(_sleep, (), where)])
    with pytest.raises(LoadTimeoutError, match="not done") as late:
        Cluster(cpus=100, may_grow=True, timeout_s=1).run([Job(_sleep, ())])
    assert "100 a task" in late.value.hint
    with pytest.raises(ZeroDivisionError):
        Cluster().run([Job(_fail, ()), Job(_sleep, ())])
    with pytest.raises(TaskLostError):
        Cluster(retries=0).run([Job(_die, ())])


def _sleep() -> None:
    time.sleep(600)


def _fail() -> float:
    return 1 / 0


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# --- kills --------------------------------------------------------------------------------------------------------


def large(seed: int) -> Model:
    """Enough that a kill finds it at work: 4 files of 4 MiB that hardly get smaller, in objects of 64 KiB."""
    source = random.Random(seed)
    return {
        f"model-{shard:05}.safetensors": {
            f"layers.{shard}.{number}": Tensor("BF16", (4096, 128), source.randbytes(1 << 20))
            for number in range(4)
        }
        for shard in range(4)
    }


def objects_in(repository: Path) -> int:
    return sum(1 for path in (repository / "objects").rglob("*") if path.is_file())


def workers(machines: Machines, name: str) -> list[int]:
    """Processes of this cluster that run a task of this name now."""
    found = []
    raylets = machines.raylets
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes()
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent in raylets and title.startswith(b"ray::") and name.encode() in title:
                found.append(int(entry.name))
    return found


def kill_when(
    repository: Path, more: int, act: Callable[[], bool], stop: threading.Event
) -> threading.Thread:
    """Acts once, as soon as so many objects more are there; again until it says that it did."""
    before = objects_in(repository)

    def watch() -> None:
        while not stop.is_set():
            if objects_in(repository) >= before + more and act():
                return
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def push_killed(
    tmp_path: Path, model: Model, act: Callable[[], bool], *, retries: int = 5
) -> tuple[bool, Any]:
    """Pushes a model while something is killed; whether it was, and the report."""
    done, killed = threading.Event(), threading.Event()

    def once() -> bool:
        if act():
            killed.set()
            return True
        return False

    Repository.open(tmp_path / "repo", create=True, window_bytes=1 << 16)
    (tmp_path / "repo" / "objects").mkdir(exist_ok=True)
    watcher = kill_when(tmp_path / "repo", 3, once, done)
    try:
        report = push(
            "textnlp://m@1.0.0",
            write(model, tmp_path / "m"),
            repository=str(tmp_path / "repo"),
            part_bytes=1,
            options=OPTIONS,
            cluster=Cluster(retries=retries, timeout_s=300),
        )
    finally:
        done.set()
        watcher.join()
    return killed.is_set(), report


def kill_workers(machines: Machines, name: str) -> bool:
    found = workers(machines, name)
    for process in found:
        os.kill(process, signal.SIGKILL)
    return bool(found)


def test_workers_are_killed(machines: Machines, tmp_path: Path) -> None:
    model = large(1)
    killed, report = push_killed(tmp_path, model, lambda: kill_workers(machines, "code_files"))
    assert killed and not report.already_there
    assert Repository.open(tmp_path / "repo").verify().ok
    stop, fell = threading.Event(), threading.Event()

    def fell_one() -> None:
        while not stop.is_set() and not fell.is_set():
            if kill_workers(machines, "fill_stretches"):
                fell.set()
            time.sleep(0.002)

    thread = threading.Thread(target=fell_one)
    thread.start()
    try:
        restore(
            "textnlp://m",
            tmp_path / "out",
            repository=str(tmp_path / "repo"),
            part_bytes=1 << 20,
            options=OPTIONS,
            cluster=Cluster(retries=5, timeout_s=300),
        )
    finally:
        stop.set()
        thread.join()
    assert fell.is_set()
    assert restored(tmp_path / "out") == files_of(model)
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


@pytest.mark.slow
def test_a_node_is_killed(machines: Machines, tmp_path: Path) -> None:
    def act() -> bool:
        if not workers(machines, "code_files"):
            return False
        machines.kill()
        return True

    try:
        killed, _ = push_killed(tmp_path, large(2), act)
    finally:
        while len(machines.nodes) < NODES:
            machines.add()
    assert killed
    assert Repository.open(tmp_path / "repo").verify().ok
    restore("textnlp://m", tmp_path / "out", repository=str(tmp_path / "repo"))
    assert restored(tmp_path / "out") == files_of(large(2))


def test_a_driver_is_killed(machines: Machines, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    source = write(large(3), tmp_path / "m")
    Repository.open(repository, create=True, window_bytes=1 << 16)
    (repository / "objects").mkdir(exist_ok=True)
    command = [sys.executable, str(HERE / "ray_driver.py"), machines.address, str(source), str(repository)]
    driver = subprocess.Popen([*command, "textnlp://m@1.0.0"], stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 300
        while objects_in(repository) < 3:
            assert driver.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        driver.kill()
        driver.communicate()
    assert Repository.open(repository).models() == {}
    left = objects_in(repository)
    report = push("textnlp://m@1.0.0", source, repository=str(repository), part_bytes=1, options=OPTIONS)
    # What the killed one had uploaded is found by its name.
    assert left and report.uploaded_bytes < report.stored_bytes
    assert Repository.open(repository).verify().ok
