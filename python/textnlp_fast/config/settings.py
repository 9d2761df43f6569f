"""What can be set, of which type, under which names, and what it is if nobody sets it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PrivateAttr, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from textnlp_fast.errors import InvalidInputError

__all__ = ["PREFIX", "OidcRule", "Settings", "SignatureRule", "names_of"]

PREFIX: Final = "TEXTNLP_FAST_"
_MIB = 1 << 20
_Provider = Literal["local", "memory", "aws", "gcp", "azure"]
_SCHEMES: Final = {"memory": "memory", "aws": "s3", "gcp": "gs", "azure": "az"}


def _shared(name: str, default: Any, description: str, **more: Any) -> Any:
    """A setting whose variable others use too; with the prefix in front it is for this package alone, and wins."""
    return Field(
        default,
        validation_alias=AliasChoices(PREFIX + name.upper(), name.upper()),
        description=description,
        **more,
    )


class SignatureRule(BaseModel):
    """Models whose names match `models` (`*` matches any part, `/` too) need signatures of these keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: str = "*"
    public_keys: Annotated[tuple[Path, ...], Field(min_length=1)]
    """PEM files. Any `threshold` of them must have signed."""
    threshold: Annotated[int, Field(ge=1)] = 1


class OidcRule(BaseModel):
    """Whose tokens the service believes; the fields of `service.config.OidcConfig`, which checks them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str
    audience: str
    jwks_url: str | None = None
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    role_claim: str = "roles"
    roles: dict[str, Literal["scrape", "reader", "publisher", "operator"]] = Field(default_factory=dict)
    default_role: Literal["scrape", "reader", "publisher", "operator"] | None = None
    subject_claim: str = "sub"


class Settings(BaseSettings):
    """All settings. `sources` says where each came from; what is missing there is a default.

    Built by :func:`load_settings`; the class by itself takes arguments only and reads neither environment nor files.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True
    )

    # --- where the repository is
    repo: str | None = Field(None, description="The repository: a folder or URL; the commands' --repo")
    provider: _Provider | None = Field(None, description="Whose bucket `model_storage_bucket` is")
    model_storage_bucket: str | None = _shared(
        "model_storage_bucket", None, "Bucket or folder of the repository"
    )
    prefix: str = Field("", description="Path of the repository below the bucket")
    root: Path | None = Field(None, description="Where the folders of provider `local` lie")
    endpoint_url: str | None = Field(
        None, description="Where the bucket's service is, if not at its provider's"
    )
    aws_region: str | None = _shared(
        "aws_region", None, "Region of an S3 bucket, and of EC2 where none is named"
    )
    gcp_project_id: str | None = _shared(
        "gcp_project_id", None, "Project of a Google Cloud bucket and of machines there; says whose they are"
    )
    azure_resource_group: str | None = _shared(
        "azure_resource_group",
        None,
        "Resource group of an Azure account and of machines; says whose they are",
    )

    azure_subnet: str | None = Field(
        None, description="Subnet of machines on Azure: NETWORK/SUBNET of the group, or a resource id"
    )
    azure_ssh_public_key_file: Path | None = Field(
        None, description="File with the public key of who may log in to machines on Azure"
    )

    # --- how versions are stored and moved
    max_shard_size_gb: float = _shared(
        "max_shard_size_gb",
        2.0,
        "Largest file that a model is cut into, in GB",
        gt=0,
        le=1000,
        allow_inf_nan=False,
    )
    enable_compression: bool = _shared(
        "enable_compression", True, "Code new tensors; false stores them as they are"
    )
    enable_versioning: bool = Field(
        True, description="Code each version against its parent; false: each by itself"
    )
    enable_sharding: bool = Field(True, description="Pack tensors together into objects")
    threads: int = Field(
        0, ge=0, le=4096, description="Threads that hash, code and decode; 0: every processor"
    )
    memory_mib: int = Field(384, ge=176, le=1 << 20, description="Budget for buffers, in MiB")

    # --- where models are served
    default_gpu_type: str | None = _shared(
        "default_gpu_type",
        None,
        "GPU type to ask for where none is named",
    )
    enable_spot_instances: bool = _shared(
        "enable_spot_instances",
        False,
        "Allow machines that may be taken away",
    )
    gpu_autoscaling: bool = _shared(
        "gpu_autoscaling",
        True,
        "Let the number of machines follow the load; false: autoscalers refuse to start",
    )
    gpu_catalog: Path | None = Field(
        None, description="Refreshed prices of machines with GPUs; else a file in the user's cache"
    )

    fleet_state: str | None = Field(
        None, description="Folder or bucket URL of the fleet's journal; else a folder of the user's"
    )
    fleet_owner: str | None = Field(
        None, description="Name of the fleet on its machines' tags; else user and host"
    )
    gpu_max_usd_per_hour: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Cap on the price of one machine, in USD an hour"
    )
    gpu_budget_usd_per_hour: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Budget of all machines together, in USD an hour"
    )
    gpu_budget_usd: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Budget of all that was ever spent on machines, in USD"
    )

    gpu_health_rules: Path | None = Field(
        None, description="File with what differs from the rules by which GPUs are judged"
    )

    # --- audit and signatures
    audit: Literal["off", "on", "full"] = Field(
        "on", description="What the audit log records: nothing, changes, and how they ended"
    )
    audit_reads: bool = Field(False, description="Record pulls and verifications, too")
    actor: str | None = Field(
        None, max_length=256, description="Who records say did it; else user, machine and role"
    )
    audit_key: SecretStr | None = Field(
        None, description="Keys in hex that prove who could write records, one a line"
    )
    audit_key_file: Path | None = Field(
        None, description="A file with such keys: the first seals, all of them prove"
    )
    audit_witness: Path | None = Field(
        None, description="Folder in which this machine remembers the ends of logs"
    )
    sign_key: Path | None = Field(None, description="Private key (PEM) that the commands push and sign use")
    sign_key_password: SecretStr | None = Field(None, description="Password of that key, if it is encrypted")
    signature_policy: tuple[SignatureRule, ...] = Field(
        (), description="Which models need signatures of which keys"
    )

    # --- the service
    service_tokens: Path | None = Field(None, description="File of the tokens that the service lets in")
    service_oidc: OidcRule | None = Field(
        None, description="Identity provider whose tokens the service lets in"
    )
    service_allowed_hosts: tuple[str, ...] = Field(
        (), description="Names by which the service may be asked, beside its address"
    )
    service_allowed_paths: tuple[Path, ...] = Field(
        (), description="Folders that the service's transfers may read and write"
    )
    service_health_agents: dict[str, str] = Field(
        default_factory=dict, description="Agents that the service asks for the health of machines: name, URL"
    )

    # --- nodes that share what they have read
    peers: str | None = Field(
        None,
        description="Node caches to read objects from, with commas: http://HOST:PORT, dns+http://NAME:PORT",
    )
    peer_cache: Path | None = Field(None, description="Folder in which pieces of objects are kept")
    peer_cache_gib: float = Field(
        64.0, ge=0, le=1e6, allow_inf_nan=False, description="Most that is kept there, in GiB"
    )
    peer_token: SecretStr | None = Field(None, description="Secret that node caches ask for")

    # --- telemetry
    metrics_file: Path | None = Field(
        None, description="Where commands write their metrics (Prometheus text)"
    )
    traces: bool = Field(False, description="Send spans to OpenTelemetry's tracer provider")

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def sources(self) -> dict[str, str]:
        """Where each setting that somebody set came from, by its name."""
        return dict(self._sources)

    @property
    def memory_budget_bytes(self) -> int:
        return self.memory_mib * _MIB

    @property
    def repository_url(self) -> str | None:
        """`repo`, or what provider, bucket and prefix make; None if neither is set."""
        if self.repo or not self.model_storage_bucket:
            return self.repo or None
        if "://" in self.model_storage_bucket:
            return "/".join(filter(None, (self.model_storage_bucket.rstrip("/"), self.prefix)))
        path = f"{self.model_storage_bucket}/{self.prefix}" if self.prefix else self.model_storage_bucket
        provider = self.bucket_provider
        if provider == "local":
            return str((self.root or Path()).absolute() / path)
        return f"{_SCHEMES[provider]}://{path}"

    @property
    def bucket_provider(self) -> _Provider:
        """`provider`, or the only one that a region, project or resource group is set for, or `local`.

        Raises InvalidInputError where several are.
        """
        if self.provider is not None:
            return self.provider
        hints: dict[_Provider, str | None] = {
            "aws": self.aws_region,
            "gcp": self.gcp_project_id,
            "azure": self.azure_resource_group,
        }
        found = [provider for provider, hint in hints.items() if hint]
        if len(found) > 1:
            raise InvalidInputError(
                f"bucket {self.model_storage_bucket!r} may be one of {' or '.join(found)}",
                hint="Set TEXTNLP_FAST_PROVIDER to one of local, aws, gcp, azure.",
            )
        return found[0] if found else "local"

    def signature_rules(self, model: str) -> tuple[SignatureRule, ...]:
        """The rules that a model's name matches; all of them must be met."""
        return tuple(rule for rule in self.signature_policy if fnmatchcase(model, rule.models))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments only: `load_settings` puts the sources together, to know which of them won."""
        return (init_settings,)


def names_of(name: str) -> tuple[str, ...]:
    """The environment variables of a setting, the one that wins first."""
    alias = Settings.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices)
    return (PREFIX + name.upper(),)
