"""What the live side of the API takes and gives: transfers, the fleet, its costs and health, the autoscaler.

Sizes are in bytes, durations in seconds, times RFC 3339 in UTC, money in US dollars. Requests take no field that is not
stated here, and none of them is an address that the service would fetch from.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

__all__ = [
    "AutoscalerDecision",
    "AutoscalerExplanation",
    "AutoscalerFleet",
    "AutoscalerFleets",
    "CollectRequest",
    "CostPoint",
    "DecisionPage",
    "DeltaRequest",
    "DryRunRequest",
    "FleetCosts",
    "FleetHealthView",
    "FleetInstanceView",
    "FleetInstances",
    "HealthFinding",
    "MachineView",
    "ProviderCosts",
    "PullRequest",
    "PushRequest",
    "TransferPage",
    "TransferProblem",
    "TransferProgress",
    "TransferRequest",
    "TransferRoots",
    "TransferView",
    "VerifyRequest",
]

State = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
Kind = Literal["push", "pull", "verify", "delta", "dry_run", "collect"]

ModelName = Annotated[str, StringConstraints(min_length=1, max_length=400)]
VersionName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
LocalPath = Annotated[
    str,
    StringConstraints(min_length=1, max_length=4096, pattern=r"^/[^\x00-\x1f\x7f]*$"),
    Field(description="An absolute path on the service's machine, below one of its roots."),
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PushRequest(_Request):
    """Publish a folder, or one safetensors file, as a version."""

    kind: Literal["push"]
    path: LocalPath
    model: ModelName
    version: VersionName
    parent: Annotated[str, StringConstraints(min_length=1, max_length=600)] | None = "auto"
    """What to code against: `auto`, a version, `MODEL@VERSION`, or null."""
    base_path: LocalPath | None = None
    """The parent's files, where they are at hand."""
    message: Annotated[str, StringConstraints(max_length=4000)] = ""
    metadata: Annotated[
        dict[
            Annotated[str, StringConstraints(min_length=1, max_length=100)],
            Annotated[str, StringConstraints(max_length=2000)],
        ],
        Field(max_length=50),
    ] = {}


class PullRequest(_Request):
    """Make a folder of a version; null: the latest when the transfer was asked for."""

    kind: Literal["pull"]
    model: ModelName
    version: VersionName | None = None
    path: LocalPath


class VerifyRequest(_Request):
    """Check a version, a model or everything; `deep` reads and decodes every byte."""

    kind: Literal["verify"]
    model: ModelName | None = None
    version: VersionName | None = None
    deep: bool = True


class DeltaRequest(_Request):
    """Make a patch file that turns one version's files into another's."""

    kind: Literal["delta"]
    model: ModelName
    from_version: VersionName
    to_version: VersionName
    path: LocalPath


class DryRunRequest(_Request):
    """What a push would do, at which cost and why. Nothing is written."""

    kind: Literal["dry_run"]
    path: LocalPath
    model: ModelName
    version: VersionName
    parent: Annotated[str, StringConstraints(min_length=1, max_length=600)] | None = "auto"
    base_path: LocalPath | None = None


class CollectRequest(_Request):
    """Tell which versions and objects nothing needs, and with `delete` let them go."""

    kind: Literal["collect"]
    delete: bool = False
    rebase: bool = False
    grace_s: Annotated[float, Field(ge=0, le=365 * 86400)] = 86400.0
    models: Annotated[str, StringConstraints(min_length=1, max_length=400)] = "*"
    """The pattern of the models that the rules are for."""
    keep_last: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    keep_stages: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=100)]], Field(max_length=50)
    ] = []
    older_than_s: Annotated[float, Field(ge=0, le=100 * 365 * 86400)] | None = None
    versions: Annotated[
        list[Annotated[str, StringConstraints(min_length=3, max_length=600)]], Field(max_length=1000)
    ] = []
    """`MODEL@VERSION` that are to go whatever the rules say."""


TransferRequest = Annotated[
    PushRequest | PullRequest | VerifyRequest | DeltaRequest | DryRunRequest | CollectRequest,
    Field(discriminator="kind"),
]


class TransferProgress(BaseModel):
    """How far it has come. `total_bytes` is of the phase; rate and time left are null while they are not known."""

    phase: str
    done_bytes: int
    total_bytes: int
    bytes_per_s: float | None = None
    eta_s: float | None = None


class TransferProblem(BaseModel):
    """Why it failed, in the terms of the API's other errors."""

    code: str
    title: str
    detail: str
    hint: str = ""


class TransferView(BaseModel):
    """A transfer as it stands."""

    id: str
    kind: Kind
    model: str | None
    version: str | None
    state: State
    created_at: str
    started_at: str | None = None
    ended_at: str | None = None
    by: str
    attempts: int = 0
    """How often it was begun: more than once where a service died or a store went away."""
    cancelling: bool = False
    """Whether it was told to stop and has not yet."""
    request: dict[str, Any]
    progress: TransferProgress | None = None
    result: dict[str, Any] | None = None
    problem: TransferProblem | None = None


class TransferPage(BaseModel):
    """Transfers, the newest first."""

    items: list[TransferView]
    next_cursor: str | None = None


class TransferRoots(BaseModel):
    """Folders that transfers may touch."""

    items: list[str]
    note: str = ""


class FleetInstanceView(BaseModel):
    """A machine that is rented, or was until a moment ago."""

    id: str
    provider: str
    region: str
    zone: str | None
    instance_type: str
    gpu_type: str
    gpus: float
    market: str
    state: str
    usd_per_hour: float
    launched_at: str
    spent_usd: float
    saved_usd: float
    """Against the price on demand; 0 where that was not known."""
    health: Literal["good", "degraded", "bad"] | None = None
    """Null: nobody watches it."""


class FleetInstances(BaseModel):
    """The machines that the journal knows to be alive."""

    items: list[FleetInstanceView]
    next_cursor: str | None = None
    note: str = ""
    """Why there are none, where none could be known."""


class ProviderCosts(BaseModel):
    """One provider's share."""

    provider: str
    running: int
    usd_per_hour: float
    spent_usd: float
    saved_usd: float


class CostPoint(BaseModel):
    """What had been spent and saved by a moment, and what an hour cost then."""

    at: str
    usd_per_hour: float
    spent_usd: float
    saved_usd: float


class FleetCosts(BaseModel):
    """What the fleet costs, from the journal: machines, without disks and traffic."""

    at: str
    usd_per_hour: float
    spent_usd: float
    saved_usd: float
    running: int
    budget_usd_per_hour: float | None = None
    budget_usd: float | None = None
    by_provider: list[ProviderCosts]
    points: list[CostPoint]
    note: str = ""


class HealthFinding(BaseModel):
    """One open problem: what it is, how bad, since when, what to do about it, and whose rule says so."""

    what: str
    rule: str
    gpu: str | None
    severity: Literal["info", "warning", "critical"]
    since: str
    action: str
    source: str
    evidence: str = ""
    count: int = 1


class MachineView(BaseModel):
    """One machine that is watched."""

    name: str
    provider: str
    state: Literal["good", "degraded", "bad"]
    action: str
    gpus: list[str]
    """Those that a finding is about, where their number alone is known; else all."""
    gpu_count: int
    findings: list[HealthFinding]
    note: str = ""


class FleetHealthView(BaseModel):
    """All machines that are watched, the worst first."""

    verdict: Literal["good", "degraded", "bad"] | None
    """Null: nothing is watched."""
    machines: list[MachineView]
    note: str = ""


class AutoscalerFleet(BaseModel):
    """A fleet that an autoscaler has scaled."""

    name: str
    target: str
    """Who scales it: the policy that wrote its state."""
    replicas: int | None
    """That served at the last look; null: not known."""
    starting: int
    wanted: int | None
    updated_at: str | None
    slo_attainment: float | None
    paused: bool
    """True where no decision came for a long time: nobody scales it now."""
    alerts: list[str]


class AutoscalerFleets(BaseModel):
    """All fleets in the autoscaler's store."""

    items: list[AutoscalerFleet]
    next_cursor: str | None = None
    note: str = ""


class AutoscalerDecision(BaseModel):
    """One decision and what it stood on."""

    number: int
    at: str
    replicas: int | None
    """That served when it was made; null: not known."""
    wanted: int
    before: int | None
    outcome: str
    reasons: list[str]
    alerts: list[str]
    load: float | None
    """Demand, in replicas."""
    forecast: float | None
    horizon_s: float
    spot: float | None
    """Share of replicas on spot, where the observation tells it."""
    usd_per_hour: float | None
    """Where the observation tells it."""
    observed: dict[str, float]


class DecisionPage(BaseModel):
    """Decisions, the newest first."""

    items: list[AutoscalerDecision]
    next_cursor: str | None = None


class AutoscalerExplanation(BaseModel):
    """Why there were so many replicas at a time."""

    decision: AutoscalerDecision
    sentences: list[str]
    demand_later: float | None
