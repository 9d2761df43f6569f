"""Tasks on a Ray cluster: handed in, waited for, and what became of them as this package's own errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

from textnlp_fast.contents.windows import Progress, ProgressCallback
from textnlp_fast.errors import (
    InvalidInputError,
    LoadTimeoutError,
    MissingPackageError,
    StorageUnavailableError,
    TextnlpFastError,
)

__all__ = ["Cluster", "Job", "TaskLostError", "counting"]

_POLL_S: Final = 1.0


class TaskLostError(TextnlpFastError):
    """A task died with its worker or node more often than it is tried, or its node is not there."""

    exit_code = 8
    default_hint = (
        "Nothing was published or put into place. See with `ray status` which nodes are well, and run it again: "
        "what was uploaded is not sent twice."
    )


@dataclass(frozen=True, slots=True)
class Job:
    """One call. `arguments` are plain data; `node` is the id of the node that it has to run on, None: any."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    node: str | None = None
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """How tasks are run on the cluster that `ray.init` connected.

    `cpus` are those of one task, which uses as many threads as its transfer options say. A task whose worker or node
    dies, or that the store did not answer in time, is tried `retries` times more. After `timeout_s` all is given up.
    `options` are further ones of a remote function (`memory`, `resources`, `runtime_env`). Tasks that no node of now
    has the processors for are refused, unless the cluster `may_grow`: then they wait for one that has.
    """

    cpus: float = 1
    retries: int = 3
    timeout_s: float | None = None
    may_grow: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self, jobs: Iterable[Job], done: Callable[[Job], None] | None = None) -> list[Any]:
        """What each job returned, in their order; `done` hears of each. The first error ends all of them.

        Raises what a job raised, TaskLostError, LoadTimeoutError, and InvalidInputError for nodes that were never
        there and for more processors than any node has.
        """
        ray = _ray()
        if not ray.is_initialized():
            raise InvalidInputError(
                "this process is connected to no Ray cluster", hint="Call ray.init() first."
            )
        ordered = list(jobs)
        self._check(ray.nodes(), ordered)
        deadline = None if self.timeout_s is None else time.monotonic() + self.timeout_s
        numbers = {self._submit(ray, job): number for number, job in enumerate(ordered)}
        results: list[Any] = [None] * len(ordered)
        waiting = list(numbers)
        try:
            while waiting:
                if deadline is not None and time.monotonic() > deadline:
                    raise LoadTimeoutError(
                        f"{len(waiting)} of {len(ordered)} tasks were not done within {self.timeout_s:g} s",
                        hint="See with `ray status` whether they wait for processors "
                        f"({self._task_cpus:g} a task); else give them more time (timeout_s).",
                    )
                ready, waiting = ray.wait(waiting, num_returns=1, timeout=_POLL_S)
                for reference in ready:
                    number = numbers[reference]
                    results[number] = _result(ray, reference)
                    if done is not None:
                        done(ordered[number])
        except BaseException:
            for reference in waiting:
                ray.cancel(reference, force=True)
            raise
        return results

    @property
    def _task_cpus(self) -> float:
        return float(self.options.get("num_cpus", self.cpus) or 0)

    def _check(self, nodes: list[dict[str, Any]], jobs: list[Job]) -> None:
        """Says what Ray would wait for in silence, or refuse in words of its own."""
        alive = {
            str(node["NodeID"]): float(node.get("Resources", {}).get("CPU", 0))
            for node in nodes
            if node["Alive"]
        }
        gone = {str(node["NodeID"]) for node in nodes} - alive.keys()
        wanted = {job.node for job in jobs}
        for node in sorted(wanted - {None}, key=str):
            if node in gone:
                raise TaskLostError(f"node {node} has left the cluster")
            if node not in alive:
                raise InvalidInputError(
                    f"the cluster has no node {str(node)[:80]!r}",
                    hint=f"Nodes go by Ray's ids, `NodeID` in ray.nodes(): {', '.join(sorted(alive)[:4])}.",
                )
        for node in wanted:
            most = max(alive.values(), default=0.0) if node is None else alive[node]
            if self._task_cpus > most and (node is not None or not self.may_grow):
                whose = "no node of the cluster has" if node is None else f"node {node} does not have"
                raise InvalidInputError(
                    f"{whose} {self._task_cpus:g} CPUs, which one task is to have: {most:g} are there",
                    hint="Lower Cluster(cpus=), or pass may_grow=True where nodes join on demand.",
                )

    def _submit(self, ray: Any, job: Job) -> Any:
        strategy: Any = "SPREAD"
        if job.node is not None:
            strategies = import_module("ray.util.scheduling_strategies")
            strategy = strategies.NodeAffinitySchedulingStrategy(node_id=job.node, soft=False)
        remote = ray.remote(job.function).options(
            **{
                "num_cpus": self.cpus,
                "max_retries": self.retries,
                # Others would say the same again.
                "retry_exceptions": [StorageUnavailableError],
                "scheduling_strategy": strategy,
                "name": f"textnlp-fast {job.function.__name__}",
                **self.options,
            }
        )
        return remote.remote(*job.arguments)


def counting(progress: ProgressCallback | None, phase: str, total_bytes: int) -> Callable[[Job], None] | None:
    """Tells of the bytes of jobs that are done."""
    if progress is None:
        return None
    so_far = 0

    def done(job: Job) -> None:
        nonlocal so_far
        so_far += job.size_bytes
        progress(Progress(phase, so_far, total_bytes))

    return done


def _result(ray: Any, reference: Any) -> Any:
    errors = ray.exceptions
    try:
        return ray.get(reference)
    except errors.RayTaskError as error:
        if isinstance(error.cause, TextnlpFastError):
            raise error.cause from error
        raise
    except errors.TaskCancelledError:
        raise
    except errors.RayError as error:
        raise TaskLostError(f"a task was lost: {str(error).strip().splitlines()[0]}") from error


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError as error:
        raise MissingPackageError("ray is not installed", hint="pip install 'textnlp-fast[ray]'") from error
