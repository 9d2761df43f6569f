"""`textnlp-fast serve`: the HTTP API and the dashboard."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from textnlp_fast.cli.arguments import (
    FiniteRange,
    StorageVerb,
    agent_token,
    repository_option,
    transfer_options,
    tuning_options,
)
from textnlp_fast.cli.configured import current_settings, reach, repository_url, setting
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.service.config import ROLES, OidcConfig, ServiceConfig

if TYPE_CHECKING:
    from collections.abc import Callable

EPILOG = """\b
Examples:
  textnlp-fast serve --repo s3://my-bucket/models
  textnlp-fast serve --new-token alice --role operator --tokens tokens.yaml
  textnlp-fast serve --tokens tokens.yaml --host 0.0.0.0 --tls-cert tls.crt --tls-key tls.key

\b
Without tokens and identity provider it listens on this machine alone, for everybody on it. With them it may listen on
any address; what is not encrypted there belongs behind a proxy that is. The token of health agents is
TEXTNLP_FAST_AGENT_TOKEN. SIGTERM ends it: streams end, what is being answered is, jobs are handed over.
"""
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_ROLE = click.Choice(ROLES)
_DEFAULTS = {field.name: field.default for field in fields(ServiceConfig)}
_RATE = FiniteRange(min=0, max=1e6, min_open=True)


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorated(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


_where = _options(
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=8470,
        show_default=True,
        help="0 takes any that is free.",
    ),
    click.option("--tls-cert", type=_FILE, metavar="FILE", help="Certificate, PEM; with --tls-key."),
    click.option("--tls-key", type=_FILE, metavar="FILE", help="Its key, PEM."),
    click.option(
        "--allow-host",
        "allowed_hosts",
        multiple=True,
        metavar="NAME",
        default=setting("service_allowed_hosts", ()),
        help="A name by which it may be asked, beside its address; may be repeated.",
    ),
    click.option(
        "--trusted-proxy",
        "proxies",
        multiple=True,
        metavar="ADDRESS",
        help="A proxy whose X-Forwarded-For is believed; may be repeated.",
    ),
    click.option(
        "--requests-per-s",
        type=_RATE,
        default=_DEFAULTS["requests_per_s"],
        show_default=True,
        help="What one caller may ask for, on average; twice as many at once.",
    ),
    click.option(
        "--failures-per-s",
        type=_RATE,
        default=_DEFAULTS["failures_per_s"],
        show_default=True,
        help="Refused credentials from one address, on average; ten times as many at once.",
    ),
)
_who = _options(
    click.option(
        "--tokens",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        default=setting("service_tokens", None),
        help="Who is let in by a token.",
    ),
    click.option("--oidc-issuer", metavar="URL", help="Identity provider whose tokens (JWT) are believed."),
    click.option("--oidc-audience", metavar="TEXT", help="What its tokens must be for."),
    click.option("--oidc-jwks-url", metavar="URL", help="Where its keys are, if it does not say so itself."),
    click.option("--oidc-algorithm", "oidc_algorithms", multiple=True, metavar="NAME", help="As RS256."),
    click.option("--oidc-role-claim", metavar="NAME", help="Claim that holds roles; by default roles."),
    click.option("--oidc-subject-claim", metavar="NAME", help="Claim that names the caller; by default sub."),
    click.option(
        "--oidc-role",
        "oidc_roles",
        multiple=True,
        metavar="VALUE=ROLE",
        help="What a value of that claim is here; may be repeated.",
    ),
    click.option("--oidc-default-role", type=_ROLE, help="Role of who has none by that claim."),
    click.option(
        "--open-role",
        type=_ROLE,
        default="operator",
        show_default=True,
        help="Role of everybody on this machine, without tokens.",
    ),
    click.option("--new-token", "new", metavar="NAME", help="Make a token, print it once, and end."),
    click.option("--role", type=_ROLE, help="Its role."),
    click.option("--expires", "expires_at", metavar="TIME", help="When it ends, as 2027-01-31T00:00:00Z."),
)
_what = _options(
    click.option("--create", is_flag=True, help="Make the repository if there is none."),
    click.option(
        "--allow-path",
        "allowed_paths",
        multiple=True,
        type=click.Path(file_okay=False, path_type=Path),
        default=setting("service_allowed_paths", ()),
        metavar="FOLDER",
        help="A folder that transfers may read and write; may be repeated.",
    ),
    click.option(
        "--fleet-state",
        metavar="URL",
        default=setting("fleet_state", None),
        help="The journal of machines: a folder or bucket.",
    ),
    click.option(
        "--autoscaler-store",
        metavar="URL",
        help="Where autoscalers keep their books (their --store).  [default: the journal's]",
    ),
    click.option(
        "--health-agent",
        "agents",
        multiple=True,
        metavar="[NAME=]URL",
        help="An agent that is asked for the health of its machine; may be repeated.",
    ),
)


@click.command("serve", cls=StorageVerb, epilog=EPILOG)
@repository_option
@_where
@_who
@_what
@tuning_options
def command(
    *,
    repo: str | None,
    host: str,
    port: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    proxies: tuple[str, ...],
    tokens: Path | None,
    new: str | None,
    role: str | None,
    expires_at: str | None,
    create: bool,
    threads: int,
    memory_mib: int,
    **more: Any,
) -> None:
    """Serve repository, registry and fleet over HTTP, with a dashboard, until it is ended."""
    from textnlp_fast.service.needs import needing_service_packages  # noqa: PLC0415

    if new is not None:
        with needing_service_packages():
            _make_token(tokens, new, role, expires_at)
        return
    if role is not None or expires_at is not None:
        raise InvalidInputError("--role and --expires are of a new token", hint="Name it: --new-token NAME.")
    if (tls_cert is None) != (tls_key is None):
        raise InvalidInputError("a certificate needs its key", hint="Give --tls-cert and --tls-key.")
    url = repository_url(repo)
    if url.startswith("memory:"):
        raise InvalidInputError(f"{url} is gone when this command ends", hint="Name a folder or a bucket.")
    config = _config(url, host, port, tokens, more)
    options = transfer_options(threads, memory_mib)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with needing_service_packages():
        from textnlp_fast.service.app import create_app  # noqa: PLC0415
        from textnlp_fast.service.serving import Tls, serve  # noqa: PLC0415
    from textnlp_fast.storage import Repository  # noqa: PLC0415

    # Opened here for its errors: no repository, no credentials, no network.
    store = Repository.open(url, create=create, **reach()).store

    def ready(address: str) -> None:
        click.echo(f"serving {url} at {address}")
        if not config.is_protected:
            click.echo(f"no tokens: everybody on this machine is {config.open_role}", err=True)

    tls = Tls(tls_cert, tls_key) if tls_cert is not None and tls_key is not None else None
    app = create_app(config, store=store, options=options)
    if not serve(app, config, tls=tls, trusted_proxies=proxies, ready=ready):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _config(url: str, host: str, port: int, tokens: Path | None, more: dict[str, Any]) -> ServiceConfig:
    settings = current_settings()
    agents = dict(settings.service_health_agents) if settings is not None else {}
    return ServiceConfig(
        repo=url,
        host=host,
        port=port,
        **reach(),
        tokens=tokens,
        oidc=_oidc(more),
        open_role=more["open_role"],
        requests_per_s=more["requests_per_s"],
        request_burst=max(1, round(2 * more["requests_per_s"])),
        failures_per_s=more["failures_per_s"],
        failure_burst=max(1, round(10 * more["failures_per_s"])),
        allowed_hosts=tuple(more["allowed_hosts"]),
        allowed_paths=tuple(path.resolve() for path in more["allowed_paths"]),
        fleet_state=more["fleet_state"],
        autoscaler_store=more["autoscaler_store"],
        health_agents={**agents, **dict(_named(text) for text in more["agents"])},
        agent_token=agent_token(None),
    )


def _oidc(more: dict[str, Any]) -> OidcConfig | None:
    """What options say of the identity provider, over what settings do; None where neither names one."""
    settings = current_settings()
    rule = settings.service_oidc if settings is not None else None
    said: dict[str, Any] = {} if rule is None else rule.model_dump()
    roles = {}
    for text in more["oidc_roles"]:
        value, equals, role = text.rpartition("=")
        if not equals or not value:
            raise InvalidInputError(f"--oidc-role {text!r} is not VALUE=ROLE", hint="Write ml-ops=operator.")
        roles[value] = role
    chosen = {
        "issuer": more["oidc_issuer"],
        "audience": more["oidc_audience"],
        "jwks_url": more["oidc_jwks_url"],
        "algorithms": more["oidc_algorithms"] or None,
        "role_claim": more["oidc_role_claim"],
        "subject_claim": more["oidc_subject_claim"],
        "roles": roles or None,
        "default_role": more["oidc_default_role"],
    }
    said |= {name: value for name, value in chosen.items() if value is not None}
    if not said:
        return None
    if not said.get("issuer") or not said.get("audience"):
        raise InvalidInputError(
            "an identity provider needs its issuer and an audience",
            hint="Give --oidc-issuer and --oidc-audience.",
        )
    known = {field.name for field in fields(OidcConfig)}
    return OidcConfig(**{name: value for name, value in said.items() if name in known})


def _named(text: str) -> tuple[str, str]:
    """Name and URL of `[NAME=]URL`; the URL names itself where nobody does."""
    name, equals, url = text.partition("=")
    return (name, url) if equals and "://" not in name else (text, text)


def _make_token(path: Path | None, name: str, role: str | None, expires_at: str | None) -> None:
    from textnlp_fast.service.auth.principals import role_named  # noqa: PLC0415
    from textnlp_fast.service.auth.tokens import new_token, read_tokens  # noqa: PLC0415

    found = role_named(role) if role is not None else None
    if path is None or found is None:
        raise InvalidInputError(
            "a new token needs a role and a file to be known by",
            hint=f"Give --role (one of {', '.join(ROLES)}) and --tokens FILE.",
        )
    token = new_token(path, name, found, expires_at=expires_at)
    click.echo(token)
    click.echo(f"{path} knows it by its digest; it is shown this once", err=True)
    count = sum(each.subject == name for each in read_tokens(path))
    if count > 1:
        click.echo(
            f"{name} has {count} tokens now; to withdraw an old one, take its line out of {path}", err=True
        )
