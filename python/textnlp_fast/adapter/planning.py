"""What a description comes to: the version it means, the bytes that move, the machines, the price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from textnlp_fast.adapter.description import Deployment
from textnlp_fast.adapter.hardware import Hardware, choose_hardware
from textnlp_fast.contents.inventory import Held
from textnlp_fast.errors import InvalidInputError, TextnlpFastError
from textnlp_fast.gpu.recommender import ReadModel, parse_config, shape_of_parameters
from textnlp_fast.gpu.scaling.policy import ScalingPolicy
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.planning import plan_pull
from textnlp_fast.storage.small_files import read_small_file

if TYPE_CHECKING:
    from textnlp_fast.gpu.catalog import Catalog
    from textnlp_fast.storage import Repository

__all__ = ["DeploymentPlan", "Version", "make_plan", "policy_of"]

_CONFIG_BYTES: Final = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Version:
    """The version that is served. Sizes in bytes, of one node."""

    name: str
    version: str
    raw_bytes: int
    """On disk."""
    fetch_bytes: int
    """Read from the repository by a node that has nothing."""
    from_version: str | None = None
    from_bytes: int | None = None
    """Read by a node that has `from_version`."""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, kw_only=True)
class DeploymentPlan:
    """A description with nothing left open: what targets compile."""

    deployment: Deployment
    version: Version
    hardware: Hardware
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The deployment's."""
        return self.deployment.name

    @property
    def replicas(self) -> int:
        """To begin with, within the policy's bounds."""
        return self.hardware.replicas


def make_plan(
    deployment: Deployment,
    repository: Repository,
    *,
    catalog: Catalog | None = None,
    serving: str | None = None,
    one_a_machine: bool = False,
) -> DeploymentPlan:
    """Resolves the version, counts the bytes, and chooses machines where the description names none.

    `serving` is the version that nodes have now; `one_a_machine` leaves out machines that would hold several replicas,
    or a part of one. Raises what the repository does where the version is not there, and NoPlanError where nothing on
    offer serves the workload.
    """
    reference = deployment.model.parsed
    manifest = repository.manifest(reference.name, reference.version)
    version = _version(manifest, repository, serving)
    notes: list[str] = []
    model = _model(repository, manifest, notes) if deployment.workload is not None else None
    hardware = choose_hardware(deployment, model, catalog=catalog, one_a_machine=one_a_machine)
    notes += hardware.notes
    if deployment.rollout.hot_swap and deployment.engine.kind == "vllm":
        notes.append(
            "hot_swap sets VLLM_SERVER_DEV_MODE=1: whoever reaches the engine's port can run its workers' methods; let "
            "only the gateway and the rollout reach it"
        )
    if "://" not in deployment.model.repository:
        notes.append("the repository is a folder: nodes must have it at the same place")
    if not reference.is_exact:
        notes.append(f"{reference} is {version.version} now; what is made names that version")
    return DeploymentPlan(
        deployment=deployment, version=version, hardware=hardware, notes=tuple(dict.fromkeys(notes))
    )


def policy_of(plan: DeploymentPlan) -> ScalingPolicy:
    """The policy with what the plan knows and the description left open: a replica's rate, and its price."""
    policy, hardware = plan.deployment.policy, plan.hardware
    capacity = policy.capacity
    if capacity.requests_per_s is None and hardware.requests_per_s is not None:
        capacity = replace(capacity, requests_per_s=hardware.requests_per_s)
    changes: dict[str, float | None] = {}
    if policy.usd_per_hour is None and hardware.usd_per_hour_each is not None:
        changes["usd_per_hour"] = hardware.usd_per_hour_each
    budget = plan.deployment.budget.usd_per_hour
    known = policy.usd_per_hour or changes.get("usd_per_hour")
    if policy.budget_usd_per_hour is None and budget and known:
        changes["budget_usd_per_hour"] = budget
    return replace(policy, capacity=capacity, **changes)  # type: ignore[arg-type]


def _version(manifest: Manifest, repository: Repository, serving: str | None) -> Version:
    fresh = plan_pull(manifest, {}).fetch_bytes
    from_version, from_bytes = None, None
    if serving is not None:
        before = repository.manifest(manifest.model, serving)
        from_version = before.version
        # Where in which file does not matter for a count.
        held: Mapping[str, Held] = {digest: Held("", 0) for entry in before.files for digest in entry.parts}
        plan = plan_pull(manifest, held)
        from_bytes = min(plan.fetch_bytes, fresh)
    return Version(
        name=manifest.model,
        version=manifest.version,
        raw_bytes=manifest.raw_bytes,
        fetch_bytes=fresh,
        from_version=from_version,
        from_bytes=from_bytes,
    )


def _model(repository: Repository, manifest: Manifest, notes: list[str]) -> ReadModel:
    """The model as its config.json has it; without one, guessed from its size."""
    data = read_small_file(
        repository.store, manifest, "config.json", repository.options, limit_bytes=_CONFIG_BYTES
    )
    if data is not None:
        try:
            read = parse_config(data, name=manifest.model)
            notes += read.notes
            return read
        except InvalidInputError as error:
            notes.append(f"its config.json does not say the model's shape ({error.args[0]})")
    parameters = sum(_parameters(one) for one in repository.headers(manifest).values())
    if not parameters:
        raise InvalidInputError(
            f"{manifest.model}@{manifest.version} has no tensors: nothing says how large its GPUs must be",
            hint="Name the GPU: machines.gpu and machines.gpus.",
        )
    notes.append(f"its shape is guessed from its {parameters / 1e9:.3g}B parameters")
    try:
        return ReadModel(shape_of_parameters(float(parameters)), weights="bf16")
    except TextnlpFastError as error:
        raise InvalidInputError(
            f"{manifest.model}@{manifest.version}: {error.args[0]}",
            hint="Name the GPU: machines.gpu and machines.gpus.",
        ) from None


def _parameters(tensors: Mapping[str, object]) -> int:
    total = 0
    for info in tensors.values():
        count = 1
        for length in info.shape:  # type: ignore[attr-defined]
            count *= length
        total += count
    return total
