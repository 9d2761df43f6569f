"""What the service is told: where the repository is, who is let in, and how much anybody may ask for."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from textnlp_fast.errors import InvalidInputError

__all__ = [
    "ROLES",
    "OidcConfig",
    "RoleName",
    "ServiceConfig",
    "check_keys_url",
    "is_address",
    "is_loopback_name",
]

RoleName = Literal["scrape", "reader", "publisher", "operator"]
ROLES: Final[tuple[RoleName, ...]] = ("scrape", "reader", "publisher", "operator")
"""From the least to the most: a role includes those before it. `scrape` may ask for metrics alone."""

# With a secret of ours as the key, whoever knows the public one could sign (HS256), or need not (none).
_ASYMMETRIC: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcConfig:
    """Whose tokens (JWT) are believed, and what of them makes a role.

    `issuer` and `audience` must be in the token as they are here. Keys are fetched from `jwks_url`, by default from
    where the issuer's `.well-known/openid-configuration` says. `role_claim` (`realm_access.roles`: with dots into
    objects) holds a text or a list of texts, each of which `roles` may make a role of; the highest counts. Who has none
    gets `default_role`, or is refused.
    """

    issuer: str
    audience: str
    jwks_url: str | None = None
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    role_claim: str = "roles"
    roles: Mapping[str, RoleName] = field(default_factory=dict)
    default_role: RoleName | None = None
    subject_claim: str = "sub"
    leeway_s: float = 30.0
    keys_age_s: float = 300.0
    """Keys are fetched again when they are as old as this, and for a key that is unknown, but not more often than..."""
    keys_pause_s: float = 10.0
    """...this."""
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if not self.audience:
            raise InvalidInputError("OIDC needs the audience that tokens are for")
        for name, url in (("issuer", self.issuer), ("jwks_url", self.jwks_url)):
            if url is not None:
                check_keys_url(name, url)
        odd = sorted(set(self.algorithms) - _ASYMMETRIC)
        if odd or not self.algorithms:
            raise InvalidInputError(
                f"tokens cannot be signed by {odd[0] if odd else 'no algorithm'}",
                hint=f"Use some of {', '.join(sorted(_ASYMMETRIC))}: those of which the service has no secret.",
            )
        for role in (*self.roles.values(), *([self.default_role] if self.default_role else [])):
            _check_role(role)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """All that `create_app` is told.

    With neither `tokens` nor `oidc` everybody who reaches a loopback address has `open_role`; on any other address
    that is refused. `allowed_paths` are the folders that jobs may read models from and write them to, `fleet_state` the
    journal of machines and `health_agents` (name to URL) those who are asked how they are.
    """

    repo: str
    host: str = "127.0.0.1"
    port: int = 8470
    region: str | None = None
    endpoint_url: str | None = None

    # --- who is let in
    tokens: Path | None = None
    oidc: OidcConfig | None = None
    open_role: RoleName = "operator"
    allowed_hosts: tuple[str, ...] = ()
    """Names by which the service may be asked (`models.example.org`), beside those of the address it listens on."""

    # --- what it works with
    allowed_paths: tuple[Path, ...] = ()
    fleet_state: str | None = None
    autoscaler_store: str | None = None
    """Where autoscalers keep their books, if not with the journal."""
    health_agents: Mapping[str, str] = field(default_factory=dict)
    agent_token: str | None = field(default=None, repr=False)

    job_workers: int = 2
    """Jobs that this process carries out at the same time."""
    job_lease_s: float = 15.0
    """A job whose service died is taken over between one and two of these later."""
    job_poll_s: float = 1.0
    """How often other replicas' jobs are looked for, while there are any."""
    most_streams: int = 2000
    """Event streams that may be open."""

    # --- limits
    threads: int = 16
    """Threads for calls to the store."""
    heavy_threads: int = 2
    """Threads for what takes long: differences, verifications."""
    store_timeout_s: float = 30.0
    """How long an answer may wait for the store; the call itself ends by the store's own time limits."""
    write_timeout_s: float = 150.0
    heavy_timeout_s: float = 600.0
    fresh_s: float = 2.0
    """What was read of the repository is looked at again when it is older than this, beside the answer..."""
    stale_s: float = 15.0
    """...and before the answer when it is older than this."""
    listing_share: float = 0.2
    """Both grow where listings would take more of the time than this."""
    cache_bytes: int = 128 << 20
    body_bytes: int = 1 << 20
    requests_per_s: float = 1000.0
    """Of one subject, on average; per process."""
    request_burst: int = 2000
    failures_per_s: float = 5.0
    """Refused credentials from one address, on average; per process."""
    failure_burst: int = 50

    def __post_init__(self) -> None:
        _check_role(self.open_role)
        if not 0 <= self.port < 65536:
            raise InvalidInputError(f"port {self.port} is none: they go from 0 to 65535")
        for name in (
            "job_workers",
            "most_streams",
            "threads",
            "heavy_threads",
            "body_bytes",
            "request_burst",
            "failure_burst",
        ):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} is {getattr(self, name)}; it is at least 1")
        for name in (
            "store_timeout_s", "write_timeout_s", "heavy_timeout_s", "requests_per_s", "failures_per_s", "job_lease_s",
            "job_poll_s",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise InvalidInputError(f"{name} is {getattr(self, name)}; it is more than 0")
        if not 0 < self.listing_share <= 1:
            raise InvalidInputError(f"listing_share is {self.listing_share}; it is more than 0 and at most 1")
        if not 0 <= self.fresh_s <= self.stale_s:
            raise InvalidInputError(f"fresh_s is {self.fresh_s}; it may be 0 to stale_s, {self.stale_s}")
        if not self.is_protected and not self.is_loopback:
            raise InvalidInputError(
                f"other machines reach {self.host}, and nobody was named who may",
                hint="Give --tokens FILE (textnlp-fast serve --new-token NAME --role reader --tokens FILE makes one) "
                "or --oidc-issuer and --oidc-audience, or listen on 127.0.0.1 alone.",
            )

    @property
    def is_protected(self) -> bool:
        """Whether callers must say who they are."""
        return self.tokens is not None or self.oidc is not None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the address."""
        return is_loopback_name(self.host)


def is_loopback_name(name: str) -> bool:
    """Whether a name or an address means this machine alone."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_address(name: str) -> bool:
    """Whether a name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise InvalidInputError(f"there is no role {role!r}", hint=f"The roles are: {', '.join(ROLES)}.")


def check_keys_url(name: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - it is looked at when it is asked for
    except ValueError as error:
        raise InvalidInputError(f"{name} {url!r} is no URL: {error}") from None
    plain = parts.scheme == "http" and is_loopback_name(parts.hostname or "")
    if not parts.hostname or (parts.scheme != "https" and not plain):
        raise InvalidInputError(
            f"{name} {url!r} is no https:// address",
            hint="Keys that come over plain HTTP are whoever's who is in between.",
        )
    if parts.username is not None or parts.password is not None:
        raise InvalidInputError(f"{name} carries a user or a password; its keys are public")
