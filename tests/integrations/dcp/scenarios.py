"""What ranks do, in forked processes. Each function's result goes back as JSON.

The oracle is torch itself: whole tensors that every rank makes from a seed, and DCP's own files of the same state.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import signal
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from states import STEP_1, STEP_2, bits, differences, mesh_of, state_of, values, whole_tensors
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DeviceMesh, Replicate, Shard, distribute_tensor

from textnlp_fast.errors import StorageUnavailableError, TextnlpFastError
from textnlp_fast.integrations.torch_dcp import RepositoryReader, RepositoryWriter, coding
from textnlp_fast.integrations.torch_dcp.held import HELD
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage import Repository

warnings.simplefilter("ignore")


def run(scenario: str, rank: int, world: int, store: Path, arguments: dict[str, Any]) -> Any:
    """Runs a function of this module on a rank of a gloo group."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    result = globals()[scenario](rank, world, **arguments)
    dist.barrier()
    dist.destroy_process_group()
    return result


def report_of(writer: RepositoryWriter) -> dict[str, Any]:
    report = writer.report
    assert report is not None
    return {name: getattr(report, name) for name in report.__slots__}


def save_steps(
    rank: int, world: int, url: str, steps: list[int], base_memory_bytes: int | None = None
) -> Any:
    """Saves steps one after the other, each as version 0.0.STEP."""
    writer = RepositoryWriter(url, "net", base_memory_bytes=base_memory_bytes)
    reports = []
    for step in steps:
        dcp.save(state_of(step, mesh_of(world)), storage_writer=writer, checkpoint_id=str(step))
        if rank == 0:
            reports.append(report_of(writer))
        assert writer.version == f"0.0.{step}"
    return reports


def save_carried(rank: int, world: int, url: str, step: int, carried_bytes: int) -> Any:
    """Saves a step with so much, at most, sent to the coordinator."""
    carrying(carried_bytes)
    return save_steps(rank, world, url, [step])


def load_step(rank: int, world: int, url: str, step: int, reference: str = "") -> Any:
    """Loads into another state, sharded over these ranks."""
    state = state_of(step, mesh_of(world), blank=True)
    reader = RepositoryReader(url, reference or f"net@0.0.{step}")
    dcp.load(state, storage_reader=reader)
    return differences(state, step)


def load_steps(rank: int, world: int, url: str, steps: list[int]) -> Any:
    """As `load_step`, several."""
    return [name for step in steps for name in load_step(rank, world, url, step)]


def reshard(rank: int, world: int, url: str, step: int) -> Any:
    """Loads and saves on fewer ranks: two of them, then three, as groups of their own."""
    wrong, reports = [], []
    for members, version in ((2, step + 1), (3, step + 2)):
        group = dist.new_group(list(range(members)), backend="gloo")
        if rank < members:
            mesh = DeviceMesh.from_group(group, "cpu", mesh=list(range(members)))
            state = state_of(step, mesh, blank=True)
            dcp.load(state, storage_reader=RepositoryReader(url, "net"), process_group=group)
            wrong += differences(state, step)
            HELD.clear()  # as after a restart: bases come out of the repository
            writer = RepositoryWriter(url, "net")
            dcp.save(state, storage_writer=writer, checkpoint_id=str(version), process_group=group)
            if rank == 0:
                reports.append(report_of(writer))
        dist.barrier()
    return {"wrong": wrong, "reports": reports}


def save_alike(rank: int, world: int, url: str) -> Any:
    """Saves values one after the other that are equal and not the same, and says as what they come back."""
    writer = RepositoryWriter(url, "alike")
    found = []
    for value in (1, True, 1.0, 1, "1", -0.0, 0.0):
        dcp.save({"weight": torch.ones(4), "value": value}, storage_writer=writer)
        state = {"weight": torch.zeros(4), "value": None}
        dcp.load(state, storage_reader=RepositoryReader(url, "alike"))
        found.append([repr(value), repr(state["value"])])
    return found


def two_dimensional(rank: int, world: int, url: str) -> Any:
    """A mesh of 2 x 2: pieces cut along both axes, replicated along one, and loaded by rows."""
    mesh = DeviceMesh("cpu", [[0, 1], [2, 3]])
    whole = torch.arange(60 * 36, dtype=torch.float32).reshape(60, 36)
    state = {
        "both": distribute_tensor(whole, mesh, [Shard(0), Shard(1)]),
        "one": distribute_tensor(whole, mesh, [Replicate(), Shard(1)]),
    }
    writer = RepositoryWriter(url, "grid")
    dcp.save(state, storage_writer=writer)
    state["both"].to_local()[0, 0] += 1
    changed = state["both"].full_tensor()
    dcp.save(state, storage_writer=writer)
    second = report_of(writer) if rank == 0 else None
    rows = {name: distribute_tensor(torch.zeros_like(whole), mesh_of(world), [Shard(0)]) for name in state}
    dcp.load(rows, storage_reader=RepositoryReader(url, "grid"))
    dcp.save(rows, storage_writer=RepositoryWriter(url, "grid"))
    right = [
        bits(rows["both"].full_tensor()) == bits(changed),
        bits(rows["one"].full_tensor()) == bits(whole),
    ]
    return {"right": right, "second": second}


def guide_fsdp(rank: int, world: int, url: str, code: str) -> Any:
    """The guide's example of FSDP2: what was changed after the save is what it was again."""
    torch.manual_seed(3)
    model = nn.Linear(32, 48)
    fully_shard(model, mesh=mesh_of(world))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.ones(4, 32)).square().mean().backward()
    optimizer.step()
    before = describe(get_state_dict(model, optimizer))
    saving, loading = code.split('checkpoint_id="7")\n', 1)
    code = f'{saving}checkpoint_id="7")\nchange()\n{loading}'

    def change() -> None:
        optimizer.step()
        assert describe(get_state_dict(model, optimizer)) != before

    writer = RepositoryWriter(url, "my-model")
    scope = {"repository": url, "model": model, "optimizer": optimizer, "writer": writer, "change": change}
    exec(code, {**scope, "dcp": dcp, "RepositoryReader": RepositoryReader})
    return describe(get_state_dict(model, optimizer)) == before


def fsdp(rank: int, world: int, url: str, folder: str) -> Any:
    """FSDP2 and Adam: two steps saved, the second also by DCP's own writer; what both give back is compared."""

    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 32), nn.LayerNorm(32))
        for layer in (model[0], model[2]):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.8, 0.95))

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        inputs = torch.randn(8, 32, generator=torch.Generator().manual_seed(seed))
        model(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    def flat(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        states = get_state_dict(model, optimizer)
        return {"model": states[0], "optimizer": states[1]}

    mesh = mesh_of(world)
    model, optimizer = build()
    writer = RepositoryWriter(url, "fsdp", metadata={"run": "a"})
    train(model, optimizer, 1)
    dcp.save(flat(model, optimizer), storage_writer=writer)
    train(model, optimizer, 2)
    state = flat(model, optimizer)
    dcp.save(state, storage_writer=writer)
    dcp.save(state, storage_writer=dcp.FileSystemWriter(folder))
    loaded = []
    for reader in (RepositoryReader(url, "fsdp"), dcp.FileSystemReader(folder)):
        other, its = build()
        train(other, its, 9)
        wanted = flat(other, its)
        dcp.load(wanted, storage_reader=reader)
        set_state_dict(other, its, model_state_dict=wanted["model"], optim_state_dict=wanted["optimizer"])
        loaded.append(flat(other, its))
        train(other, its, 3)
        loaded.append(flat(other, its))
    train(model, optimizer, 3)
    expected = flat(model, optimizer)
    same = [describe(one) == describe(other) for one, other in zip(loaded[:2], loaded[2:], strict=True)]
    return [*same, describe(loaded[1]) == describe(expected)]


def describe(value: Any) -> Any:
    """A state as values that compare bit by bit."""
    if isinstance(value, dict):
        return {key: describe(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [describe(each) for each in value]
    if hasattr(value, "to_local"):
        value = value.to_local()
    return (str(value.dtype), tuple(value.shape), bits(value)) if isinstance(value, torch.Tensor) else value


def asynchronous(rank: int, world: int, url: str) -> Any:
    """`async_save` of two steps; the state changes while the first is on its way."""
    reports = []
    state = state_of(STEP_1, mesh_of(world))
    group = dist.new_group(backend="gloo")
    for step in (STEP_1, STEP_2):
        writer = RepositoryWriter(url, "later")
        future = dcp.async_save(state, storage_writer=writer, checkpoint_id=str(step), process_group=group)
        getattr(future, "upload_completion", future)  # both of DCP's answers are futures
        state = state_of(STEP_2, mesh_of(world))
        getattr(future, "upload_completion", future).result()
        if rank == 0:
            reports.append(report_of(writer))
    wrong = [load_step(rank, world, url, step, f"later@0.0.{step}") for step in (STEP_1, STEP_2)]
    return {"wrong": wrong, "reports": reports}


def partial(rank: int, world: int, url: str, step: int) -> Any:
    """A few names only; a name that the version does not have; all names without a state."""
    mesh = mesh_of(world)
    expected = whole_tensors(step)
    some = {"model": {"matrix": distribute_tensor(torch.zeros(64, 96), mesh, [Shard(0)])}}
    dcp.load(some, storage_reader=RepositoryReader(url, f"net@0.0.{step}"))
    right = [bits(some["model"]["matrix"].full_tensor()) == bits(expected["matrix"])]
    extra = {"model": {"scalar": torch.zeros((), dtype=torch.float64), "new": torch.ones(2)}}
    reader = RepositoryReader(url, f"net@0.0.{step}")
    try:
        dcp.load({"model": dict(extra["model"])}, storage_reader=reader)
        right.append(False)
    except CheckpointException as error:
        right.append("new" in str(error))
    dcp.load(extra, storage_reader=reader, planner=DefaultLoadPlanner(allow_partial_load=True))
    right += [
        float(extra["model"]["scalar"]) == float(expected["scalar"]),
        bool((extra["model"]["new"] == 1).all()),
    ]
    everything: dict[str, Any] = {}
    from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner  # noqa: PLC0415
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict  # noqa: PLC0415

    _load_state_dict(everything, storage_reader=reader, planner=_EmptyStateDictLoadPlanner(), no_dist=True)
    right.append(all(bits(everything["model"][name]) == bits(tensor) for name, tensor in expected.items()))
    right.append(everything["values"] == values(step))
    return right


class Trick:
    """Unpickled, it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)


def pickles(rank: int, world: int, url: str, path: str) -> Any:
    """What is no plain data is refused by the writer, then by the reader, unless both are told otherwise."""

    def said(step: Callable[[], Any]) -> str:
        try:
            step()
        except CheckpointException as error:
            return str(error)
        return ""

    state = {"trick": Trick(path), "size": torch.Size([2, 3]), "one": torch.ones(3)}
    answers = [said(lambda: dcp.save(state, storage_writer=RepositoryWriter(url, "odd"), checkpoint_id="1"))]
    trusting = RepositoryWriter(url, "odd", allow_pickle=True)
    dcp.save(state, storage_writer=trusting, checkpoint_id="1")
    blank = {"trick": None, "size": None, "one": torch.zeros(3)}
    answers.append(said(lambda: dcp.load(blank, storage_reader=RepositoryReader(url, "odd"))))
    safe = {"size": None, "one": torch.zeros(3)}
    answers.append(said(lambda: dcp.load(safe, storage_reader=RepositoryReader(url, "odd"))))
    before = Path(path).exists()
    dist.barrier()
    dcp.load(blank, storage_reader=RepositoryReader(url, "odd", allow_pickle=True))
    return {
        "answers": answers,
        "before": before,
        "size": list(safe["size"] or ()),
        "after": Path(path).exists(),
    }


def carrying(most_bytes: int) -> None:
    """From here on ranks send so much to the coordinator, at most, instead of storing it."""
    coding._CARRIED_BYTES = most_bytes  # type: ignore[misc]


def killed(rank: int, world: int, url: str, victim: int, after: int, early: bool, carried_bytes: int) -> Any:
    """Saves step 2; rank `victim` is killed at its write number `after` to the store, before or after it is done."""
    carrying(carried_bytes)
    if rank == victim:
        numbers = itertools.count(1)  # what comes before the manifest comes side by side

        def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any, **named: Any) -> Any:
                number = next(numbers)
                if early and number == after:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = function(*given, **named)
                if number == after:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return call

        for name in ("put_object", "create", "compare_and_swap", "delete"):
            setattr(ObjectStore, name, deadly(getattr(ObjectStore, name)))
    return save_steps(rank, world, url, [STEP_2])


def failing(rank: int, world: int, url: str, unable: int) -> Any:
    """Rank `unable` cannot write: the save fails on all, and publishes nothing; then it can."""
    carrying(1 << 20 if unable == 0 else 0)  # only the coordinator always writes
    put = ObjectStore.put_object

    def refuse(self: ObjectStore, key: str, data: Any) -> None:
        raise StorageUnavailableError("no")

    if rank == unable:
        ObjectStore.put_object = refuse  # type: ignore[method-assign]
    try:
        save_steps(rank, world, url, [STEP_2])
        failed = False
    except CheckpointException:
        failed = True
    ObjectStore.put_object = put  # type: ignore[method-assign]
    there = Repository.open(url).versions("net")
    intents = len([*Path(url, "pushes").glob("*")])
    dist.barrier()
    return {
        "failed": failed,
        "there": there,
        "intents": intents,
        "again": save_steps(rank, world, url, [STEP_2]),
    }


def chain(rank: int, world: int, url: str, length: int, budget: int) -> Any:
    """Many steps, so that chains of deltas are full and begin anew; with little memory bases are read again."""
    mesh = mesh_of(world)
    whole = torch.randn(256, 64, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    writer = RepositoryWriter(url, "chain", base_memory_bytes=budget)
    digests = random.Random(5)
    stored = []
    for _ in range(length):
        place = digests.randrange(256)
        whole.view(torch.int16)[place, digests.randrange(64)] ^= 1
        dcp.save({"w": distribute_tensor(whole, mesh, [Shard(0)])}, storage_writer=writer)
        if rank == 0:
            stored.append(report_of(writer)["stored_bytes"])
        assert HELD.used_bytes <= budget
    state = {"w": distribute_tensor(torch.zeros_like(whole), mesh, [Shard(0)])}
    dcp.load(state, storage_reader=RepositoryReader(url, "chain"))
    return {"right": bits(state["w"].full_tensor()) == bits(whole), "stored": stored}


def pushed(rank: int, world: int, url: str) -> Any:
    """Loads what was pushed as files, and saves a change of it: the first save is a delta already."""
    repository = Repository.open(url)
    headers = repository.headers(repository.manifest("files"))
    ((_, tensors),) = headers.items()
    mesh = mesh_of(world)
    blank = {
        name: distribute_tensor(torch.zeros(info.shape, dtype=torch.float32), mesh, [Shard(0)])
        for name, info in tensors.items()
    }
    dcp.load(blank, storage_reader=RepositoryReader(url, "files"))
    loaded = {name: np.asarray(each.full_tensor()).tobytes().hex() for name, each in blank.items()}
    next(iter(blank.values())).to_local().view(-1)[:1] += 1
    writer = RepositoryWriter(url, "tuned", parent="files@1.0.0")
    dcp.save({"model": blank}, storage_writer=writer)
    return {"loaded": loaded, "report": report_of(writer) if rank == 0 else None}


def refused(rank: int, world: int, url: str) -> Any:
    """Saves and loads that cannot be: what each says."""

    def said(step: Callable[[], Any]) -> str:
        try:
            step()
        except CheckpointException as error:
            return str(error)
        except TextnlpFastError as error:
            return f"{type(error).__name__}: {error}"
        return "nothing"

    planner = dcp.DefaultSavePlanner(enable_plan_caching=True)
    state, other = {"one": torch.ones(2)}, {"one": torch.zeros(2)}
    strange = {"z": torch.zeros(2, dtype=torch.complex128)}
    dcp.save(state, storage_writer=RepositoryWriter(url, "x"), checkpoint_id="1", planner=planner)

    once = RepositoryWriter(url, "x", version="3.0.0")
    with suppress(CheckpointException):
        dcp.save(strange, storage_writer=once)
    dcp.save(state, storage_writer=once)
    assert once.version == "3.0.0"  # named once, and tried again under that name

    def save(what: dict[str, Any], **named: Any) -> str:
        return said(lambda: dcp.save(what, storage_writer=RepositoryWriter(url, "x"), **named))

    def load(what: dict[str, Any], reference: str) -> str:
        return said(lambda: dcp.load(what, storage_reader=RepositoryReader(url, reference)))

    return [
        save(other, checkpoint_id="1"),
        save(strange),
        save(state, planner=planner),
        load(state, "absent"),
        load({"one": torch.ones(3)}, "x@0.0.1"),
    ]


def named(rank: int, world: int, url: str) -> Any:
    """What ids of checkpoints mean to the reader, and what is said of those that mean nothing; and of a load's log."""

    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("torch.distributed.checkpoint").addHandler(handler)
    logging.getLogger("torch.distributed.checkpoint.state_dict_loader").addHandler(handler)
    state = {"w": torch.zeros(2)}
    writer = RepositoryWriter(url, "vv")
    for step in (1, 2):
        dcp.save({"w": torch.full((2,), float(step))}, storage_writer=writer, checkpoint_id=str(step))
    found = []
    for name in ("1", "0.0.2", "vv@0.0.1", "latest"):
        dcp.load(state, storage_reader=RepositoryReader(url, "vv"), checkpoint_id=name)
        found.append(float(state["w"][0]))

    def said(step: Callable[[], Any]) -> str:
        try:
            step()
        except TextnlpFastError as error:
            return f"{type(error).__name__}: {error}"
        return "nothing"

    def load(name: str) -> str:
        return said(lambda: dcp.load(state, storage_reader=RepositoryReader(url, "vv"), checkpoint_id=name))

    places = [(url, "vw"), (url, "vv@0.0.9"), (url, "vv@champion"), (f"{url}-none", "vv")]
    return {
        "found": found,
        "loads": [load(name) for name in ("9", "step-1", "/tmp/checkpoints/1/", "9" * 20)],
        "readers": [said(lambda place=place: RepositoryReader(*place)) for place in places],  # type: ignore[misc]
        "heard": heard,
    }


def example(rank: int, world: int, url: str, code: str) -> Any:
    """The guide's example: whether the last step comes back into a state that was changed, and how much was stored."""
    state = {"w": distribute_tensor(torch.zeros(64, 32), mesh_of(world), [Shard(0)])}
    steps: list[torch.Tensor] = []

    def train(state: dict[str, Any]) -> None:
        if len(steps) == 3:
            raise AssertionError("the example trains three times")
        state["w"].to_local()[len(steps), :] += 1
        steps.append(state["w"].full_tensor().clone())

    written: list[tuple[Any, ...]] = []
    before = "\ndcp.load("
    assert before in code
    scope = {"repository": url, "train": train, "state": state, "print": lambda *said: written.append(said)}
    exec(code.replace(before, "\nstate['w'].to_local().zero_()" + before), scope)
    small = [stored * 2 < raw for _, stored, _, raw in written[1:]]
    return [
        bits(state["w"].full_tensor()) == bits(steps[-1]),
        all(small) and len(written) == (3 if rank == 0 else 0),
    ]
