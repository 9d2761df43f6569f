"""SkyPilot's Python SDK in memory, as far as the bridge uses it: a stand-in, held against the real one's signatures.

SkyPilot is heavy and pins much, so that it is not among the packages of the tests; where it is installed,
`test_skypilot.py` compares.
"""

from __future__ import annotations

import enum
import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FakeSky"]


class _SkyError(Exception):
    pass


def _error(name: str) -> type[Exception]:
    return type(name, (_SkyError,), {"__module__": "sky.exceptions"})


class StatusRefreshMode(enum.Enum):
    NONE = "NONE"
    AUTO = "AUTO"
    FORCE = "FORCE"


@dataclass
class Resources:
    infra: str
    instance_type: str | None = None
    accelerators: str | None = None
    use_spot: bool = False
    disk_size: int = 256
    labels: dict[str, str] = field(default_factory=dict)
    image_id: str | None = None

    def __post_init__(self) -> None:
        cloud, *rest = self.infra.split("/")
        if cloud != "lambda":
            raise ValueError(f"Cloud '{cloud}' is not a valid cloud among ['lambda'].")
        self.cloud, self.region = "Lambda", rest[0] if rest else None
        self.zone = rest[1] if len(rest) > 1 else None
        if self.instance_type is not None and not self.instance_type.startswith("gpu_"):
            raise ValueError(f"Invalid instance type '{self.instance_type}' for cloud Lambda.")


@dataclass
class Task:
    name: str | None = None
    setup: str | None = None
    num_nodes: int | None = None
    resources: Resources | None = None

    def set_resources(self, resources: Resources) -> None:
        self.resources = resources


@dataclass
class _Handle:
    launched_resources: Resources
    head_ip: str


class FakeSky:
    """The module `sky`. `capacity` is how many clusters may be up; faults are exceptions that `get` raises."""

    StatusRefreshMode = StatusRefreshMode
    Resources = Resources
    Task = Task
    names = (
        "ResourcesUnavailableError",
        "NoCloudAccessError",
        "ApiServerConnectionError",
        "ClusterDoesNotExist",
    )

    def __init__(self) -> None:
        self.errors = {name: _error(name) for name in self.names}
        self.clusters: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, Task] = {}
        self.capacity = 1000
        self.refusals: list[tuple[str, str, int, bool]] = []
        """Verb (or `*`), error, how often still, and whether the work is done before it."""
        self.launches = 0
        self._lock = threading.RLock()
        self._ids = itertools.count()
        self._requests: dict[str, Any] = {}

    def _begin(self, verb: str, work: Any) -> str:
        request_id = f"request-{next(self._ids)}"
        self._requests[request_id] = (verb, work)
        return request_id

    def get(self, request_id: str) -> Any:
        with self._lock:
            verb, work = self._requests.pop(request_id)
            for place, (wanted, name, times, done) in enumerate(self.refusals):
                if wanted in {verb, "*"} and times > 0:
                    self.refusals[place] = (wanted, name, times - 1, done)
                    if done:
                        work()
                    raise self.errors[name]("Injected.")
            return work()

    def launch(self, task: Task, cluster_name: str | None = None, retry_until_up: bool = False) -> str:
        def work() -> tuple[None, None]:
            self.launches += 1
            assert task.resources is not None and cluster_name is not None and not retry_until_up
            if cluster_name not in self.clusters:
                if sum(one["status"] == "UP" for one in self.clusters.values()) >= self.capacity:
                    words = f"Failed to provision all possible launchable resources: {task.resources.infra}"
                    raise self.errors["ResourcesUnavailableError"](words)
                self.tasks[cluster_name] = task
                self.clusters[cluster_name] = {
                    "name": cluster_name,
                    "launched_at": int(time.time()),
                    "handle": _Handle(task.resources, "203.0.113.9"),
                    "cloud": "Lambda",
                    "region": task.resources.region,
                    "nodes": 1,
                }
            self.clusters[cluster_name]["status"] = "UP"
            return None, None

        return self._begin("launch", work)

    def status(
        self, cluster_names: list[str] | None = None, refresh: StatusRefreshMode = StatusRefreshMode.NONE
    ) -> str:
        assert refresh is StatusRefreshMode.AUTO
        return self._begin(
            "status",
            lambda: [
                dict(one)
                for name, one in self.clusters.items()
                if cluster_names is None or name in cluster_names
            ],
        )

    def _cluster(self, name: str) -> dict[str, Any]:
        if name not in self.clusters:
            raise self.errors["ClusterDoesNotExist"](f"Cluster {name!r} does not exist.")
        return self.clusters[name]

    def down(self, cluster_name: str) -> str:
        return self._begin("down", lambda: self.clusters.pop(self._cluster(cluster_name)["name"]) and None)

    def stop(self, cluster_name: str) -> str:
        return self._begin("stop", lambda: self._cluster(cluster_name).update(status="STOPPED"))

    def start(self, cluster_name: str) -> str:
        return self._begin("start", lambda: self._cluster(cluster_name).update(status="UP"))
