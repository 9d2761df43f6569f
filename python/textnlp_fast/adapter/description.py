"""What is to be served, where, and how well: one description, whatever runs it.

`reading.read_deployment` makes it of a file, `targets` compile it, `rollout` changes what runs, `gateway` stands before
replicas.
Every class checks itself: one that exists is sound by itself and can be compiled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from textnlp_fast.adapter.engine_settings import Engine, SecretRef, check_variables
from textnlp_fast.adapter.fronts import Autoscaling, Gateway
from textnlp_fast.adapter.rollout_settings import HealthCheck, Rollout
from textnlp_fast.adapter.words import (
    SUBDOMAIN,
    check_choice,
    check_image,
    check_number,
    check_text,
    check_texts,
    check_whole,
    label_value,
    matches,
    refuse,
    shown,
)
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.resources.requests import Budget
from textnlp_fast.gpu.scaling.policy import ScalingPolicy
from textnlp_fast.gpu.types import GPUType
from textnlp_fast.storage.names import ModelReference, parse_reference

__all__ = [
    "Autoscaling",
    "Cache",
    "Deployment",
    "Engine",
    "Gateway",
    "HealthCheck",
    "Load",
    "Machines",
    "Model",
    "Placement",
    "Rollout",
    "SecretRef",
    "Slo",
    "Spot",
]

CacheKind = Literal["claim", "host-path", "empty-dir"]

_LABEL: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_PEER: Final = re.compile(r"(dns\+)?https?://[A-Za-z0-9.\[\]:-]+", re.ASCII)
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which version of which repository."""

    reference: str
    """`NAME`, `NAME@VERSION`, `NAME@ALIAS` or `NAME@stage:STAGE`: what is not exact is resolved when it is deployed."""
    repository: str
    """A folder or URL, as the nodes see it."""
    require_signature: bool = False
    """Pull only what is signed, by the keys that the settings of the node name."""

    def __post_init__(self) -> None:
        check_text("model.reference", self.reference, most=512)
        try:
            parse_reference(self.reference)
        except InvalidInputError as error:
            raise InvalidInputError(f"model.reference: {error.args[0]}", hint=error.hint) from None
        check_text("model.repository", self.repository, most=2048)
        authority = self.repository.partition("://")[2].partition("/")[0]
        if "@" in authority:
            refuse(
                "model.repository",
                "must not hold a user name or a password",
                hint="Let the nodes find their credentials: an instance's role, a service account.",
            )

    @property
    def parsed(self) -> ModelReference:
        """Name and version, alias or stage."""
        return parse_reference(self.reference)

    @property
    def name(self) -> str:
        """The model's, without its version."""
        return self.parsed.name


@dataclass(frozen=True, kw_only=True)
class Load:
    """The traffic to be ready for. Lengths are means, in tokens."""

    requests_per_s: float
    prompt_tokens: int = 1000
    output_tokens: int = 250
    context_tokens: int | None = None
    """What one sequence may grow to; None: prompt and output."""
    headroom: float = 0.2
    """Capacity beyond it, as a share."""

    def __post_init__(self) -> None:
        check_number("workload.requests_per_s", self.requests_per_s, above=0.0, most=1e7)
        for name in ("prompt_tokens", "output_tokens"):
            check_whole(f"workload.{name}", getattr(self, name), least=1, most=10**8)
        check_number("workload.headroom", self.headroom, least=0.0, most=10.0)
        if self.context_tokens is not None:
            check_whole("workload.context_tokens", self.context_tokens, least=1, most=10**8)
            if self.context_tokens < self.prompt_tokens + self.output_tokens:
                refuse("workload.context_tokens", "does not hold a mean prompt and its output")


@dataclass(frozen=True, kw_only=True)
class Slo:
    """How quickly, in seconds."""

    ttft_s: float = 1.0
    """To the first token."""
    tpot_s: float = 0.05
    """Between tokens, mean."""

    def __post_init__(self) -> None:
        check_number("slo.ttft_s", self.ttft_s, above=0.0, most=3600.0)
        check_number("slo.tpot_s", self.tpot_s, above=0.0, most=3600.0)


@dataclass(frozen=True, kw_only=True)
class Machines:
    """What replicas run on. What is not named, the recommender chooses: see `planning`."""

    gpu: str | None = None
    """As nvidia-l4."""
    gpus: int | None = None
    """Of one replica."""
    instance_type: str | None = None
    """A cloud's name of a machine, as g6.xlarge."""
    image: str | None = None
    """Of the machine's disk; None: the provider's own."""
    disk_gib: int = 200
    agent_port: int | None = None
    """Of the agent on a plain machine that changes versions when a rollout says so; None: another version is another
    machine. It asks for the token in `/etc/textnlp-fast/secrets/agent-token`."""
    setup: tuple[str, ...] = ()
    """Lines of shell that prepare a machine, run once as root: what its image lacks."""
    cpus: float | None = None
    """That a replica asks for, where replicas share machines."""
    memory_gib: float | None = None

    def __post_init__(self) -> None:
        if self.gpu is not None:
            object.__setattr__(self, "gpu", GPUType.parse(self.gpu).value)
        if self.gpus is not None:
            check_whole("machines.gpus", self.gpus, least=1, most=64)
        for name in ("instance_type", "image"):
            value = getattr(self, name)
            if value is not None:
                check_text(f"machines.{name}", value, most=512)
        if self.instance_type is not None and not matches(_WORD, self.instance_type, most=128):
            refuse("machines.instance_type", f"is no machine's name: {shown(self.instance_type)}")
        check_whole("machines.disk_gib", self.disk_gib, least=1, most=65536)
        if self.agent_port is not None:
            check_whole("machines.agent_port", self.agent_port, least=1, most=65535)
        check_texts("machines.setup", self.setup)
        for name in ("cpus", "memory_gib"):
            if getattr(self, name) is not None:
                check_number(f"machines.{name}", getattr(self, name), above=0.0, most=1e5)


@dataclass(frozen=True, kw_only=True)
class Spot:
    """How much of the fleet may be taken away."""

    share: float = 0.0
    """Of the replicas."""
    fall_back: bool = True
    """On demand where no spot is to be had."""

    def __post_init__(self) -> None:
        check_number("spot.share", self.share, least=0.0, most=1.0)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where."""

    clouds: tuple[str, ...] = ()
    """aws, gcp, azure; none named: all that there are."""
    regions: tuple[str, ...] = ()
    namespace: str = "default"
    """Of Kubernetes."""
    node_labels: Mapping[str, str] = field(default_factory=dict)
    """That a node must have."""
    service_account: str | None = None
    """One that is there, with its rights to the repository; None: one is made, without any."""

    def __post_init__(self) -> None:
        for name in ("clouds", "regions"):
            check_texts(f"placement.{name}", getattr(self, name))
            for one in getattr(self, name):
                if not matches(_WORD, one, most=64):
                    refuse(f"placement.{name}", f"{shown(one)} is no name of one")
        if not matches(_LABEL, self.namespace, most=63):
            refuse("placement.namespace", f"cannot be {shown(self.namespace)}")
        if self.service_account is not None and not matches(SUBDOMAIN, self.service_account, most=253):
            refuse("placement.service_account", f"cannot be {shown(self.service_account)}")
        _check_labels("placement.node_labels", self.node_labels)


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Where a node keeps versions that it has pulled."""

    kind: CacheKind = "empty-dir"
    """`claim`: one claim that all replicas share; `host-path`: the node's own; `empty-dir`: the replica's own."""
    size_gib: int | None = None
    """None: twice the version, for the next one beside it."""
    path: str = "/var/lib/textnlp-fast/models"
    """On plain instances, and of `host-path`."""
    storage_class: str | None = None
    peers: tuple[str, ...] = ()
    """Node caches that are asked before the repository: addresses, or `node`, the one of the machine itself."""
    image: str | None = None
    """Container image with `textnlp-fast`, which fills the cache: Kubernetes needs one."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of what fills it: regions, endpoints, settings of `textnlp-fast`."""
    secrets: Mapping[str, SecretRef] = field(default_factory=dict)
    """Of what fills it, where its credentials do not come with the node."""

    def __post_init__(self) -> None:
        check_choice("cache.kind", self.kind, CacheKind)
        if self.size_gib is not None:
            check_whole("cache.size_gib", self.size_gib, least=1, most=1 << 20)
        check_text("cache.path", self.path, most=1024)
        parts = self.path.split("/")
        if not self.path.startswith("/") or self.path == "/" or ".." in parts:
            refuse("cache.path", f"must be an absolute path without '..', not {shown(self.path)}")
        check_variables("cache", self.environment, self.secrets)
        check_texts("cache.peers", self.peers)
        for one in self.peers:
            if one != "node" and not matches(_PEER, one, most=300):
                refuse("cache.peers", f"{shown(one)} is no address", hint="Write node, or http://HOST:PORT.")
        if self.image is not None:
            check_image("cache.image", self.image)
        if self.storage_class is not None and not matches(SUBDOMAIN, self.storage_class, most=253):
            refuse("cache.storage_class", f"cannot be {shown(self.storage_class)}")


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A model and its version, the traffic, what it may cost, and who serves it how. Raises InvalidInputError.

    `name` is a label of DNS: what is made has it, or begins with it.
    """

    name: str
    model: Model
    engine: Engine = field(default_factory=Engine)
    workload: Load | None = None
    slo: Slo = field(default_factory=Slo)
    machines: Machines = field(default_factory=Machines)
    policy: ScalingPolicy = field(default_factory=ScalingPolicy)
    autoscaling: Autoscaling = field(default_factory=Autoscaling)
    spot: Spot = field(default_factory=Spot)
    placement: Placement = field(default_factory=Placement)
    budget: Budget = field(default_factory=Budget)
    cache: Cache = field(default_factory=Cache)
    rollout: Rollout = field(default_factory=Rollout)
    gateway: Gateway = field(default_factory=Gateway)
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of all that is made of it."""

    def __post_init__(self) -> None:
        if not matches(_LABEL, self.name, most=40):
            refuse(
                "name",
                f"cannot be {shown(self.name)}",
                hint="Lower case letters, digits and '-', beginning with a letter, at most 40 characters.",
            )
        _check_labels("labels", self.labels)
        if self.policy.min_instances == 0 and self.autoscaling.by == "none":
            refuse(
                "policy.min_instances",
                "is 0, and nobody would ever start a replica",
                hint="Set autoscaling.by, or keep one replica.",
            )

    @property
    def served_name(self) -> str:
        """The model's name in requests."""
        return self.engine.served_name or self.name


def _check_labels(where: str, labels: Mapping[str, str]) -> None:
    if not isinstance(labels, Mapping):
        refuse(where, "must be a mapping of names")
    for name, value in labels.items():
        prefix, _, word = name.rpartition("/") if isinstance(name, str) else ("", "", "")
        if (prefix and not matches(SUBDOMAIN, prefix, most=253)) or not label_value(word) or not word:
            refuse(where, f"{shown(name)} is no label's name")
        if not isinstance(value, str) or not label_value(value):
            refuse(f"{where}.{name}", f"cannot be {shown(value)}")
