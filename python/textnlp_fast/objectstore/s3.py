"""Where an S3 bucket is and who may read it: endpoint, region and the default chain of credentials."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from obstore.store import S3Store

from textnlp_fast.errors import AuthenticationError, InvalidInputError
from textnlp_fast.objectstore.keys import check_prefix
from textnlp_fast.objectstore.remote import RemoteBackend

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Credential

__all__ = ["open_s3"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
# The last is obstore's own name; looked at here, so that no endpoint goes unchecked.
_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CONNECT_TIMEOUT_S = 10.0
_RETRY_TIMEOUT_S = 240.0  # a retried request keeps its signature, which S3 takes for five minutes
_WHOLE_REQUEST_TIMEOUTS = (
    10  # a request that keeps moving may take this many times the timeout of a silent one
)
_CREDENTIAL_LIFE = timedelta(
    minutes=5
)  # how long obstore may keep what boto3 gave; boto3 refreshes by itself
_PROVIDED_BY_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def open_s3(
    bucket: str,
    prefix: str,
    *,
    region: str | None,
    endpoint_url: str | None,
    allow_http: bool,
    timeout_s: float,
    retries: int,
) -> RemoteBackend:
    """A bucket, or a folder of one. Nothing is sent yet."""
    if not _BUCKET.fullmatch(bucket):
        raise InvalidInputError(f"{bucket!r} is no bucket name: 3 to 63 of a-z, 0-9, '.' and '-'")
    prefix = check_prefix(prefix)
    endpoint = endpoint_url or next(filter(None, map(os.environ.get, _ENDPOINT_VARIABLES)), None)
    plain_http = _check_endpoint(endpoint, allow_http) if endpoint else False
    provider = _credentials()
    config: S3Config = {
        "region": _region(region, provider),
        "conditional_put": "etag",  # an environment variable could turn it off, and all safety with it
        "skip_signature": False,
    }
    if endpoint:
        config["endpoint"] = endpoint.rstrip("/")
    client: ClientConfig = {
        "connect_timeout": timedelta(seconds=min(timeout_s, _CONNECT_TIMEOUT_S)),
        "read_timeout": timedelta(seconds=timeout_s),
        "timeout": timedelta(seconds=timeout_s * _WHOLE_REQUEST_TIMEOUTS),
        "allow_http": plain_http,
        "user_agent": "textnlp-fast",
    }

    def connect(tries: int) -> S3Store:
        retry: RetryConfig = {
            "max_retries": tries,
            "retry_timeout": timedelta(seconds=min(timeout_s * (tries + 1), _RETRY_TIMEOUT_S)),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
        }
        return S3Store(
            bucket,
            prefix=prefix or None,
            config=config,
            client_options=client,
            retry_config=retry,
            credential_provider=provider,
        )

    url = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
    return RemoteBackend(url, patient=connect(retries), once=connect(0))


def _check_endpoint(endpoint: str, allow_http: bool) -> bool:
    """Whether the endpoint is plain HTTP, which only this machine may be unless the caller says otherwise."""
    parts = urlsplit(endpoint)
    if parts.username or parts.password:
        raise InvalidInputError(
            "the endpoint URL carries credentials",
            hint="Take them out: credentials come from the environment, a profile or a role only.",
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidInputError(
            f"{endpoint!r} is no endpoint URL", hint="Give https://host or https://host:port."
        )
    if parts.scheme == "https":
        return False
    if not allow_http and not _is_loopback(parts.hostname):
        raise InvalidInputError(
            f"{endpoint!r} would send weights and signatures in clear",
            hint="Use https://, or pass allow_http=True if the network is yours.",
        )
    return True


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _region(region: str | None, provider: _Boto3Credentials | None) -> str:
    return (
        region
        or os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION")
        or (provider.region if provider else None)
        or "us-east-1"
    )


class _Boto3Credentials:
    """Hands obstore what boto3's default chain finds: profiles, single sign-on, processes, roles."""

    def __init__(self, session: Any) -> None:
        self.config: S3Config = {}
        self.region: str | None = session.region_name
        self._credentials = session.get_credentials()
        if self._credentials is None:
            raise AuthenticationError(
                "no AWS credentials found in the environment, in profiles or from a role"
            )

    def __call__(self) -> S3Credential:
        frozen = self._credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(timezone.utc) + _CREDENTIAL_LIFE,
        }


def _credentials() -> _Boto3Credentials | None:
    """``None`` where obstore finds them itself (environment, web identity, container, instance)."""
    if any(os.environ.get(name) for name in _PROVIDED_BY_ENVIRONMENT):
        return None
    if importlib.util.find_spec("boto3") is not None:
        boto3 = cast("Any", importlib.import_module("boto3"))
        botocore_errors = cast("Any", importlib.import_module("botocore.exceptions"))
        try:
            return _Boto3Credentials(boto3.Session())
        except botocore_errors.BotoCoreError as error:  # no such profile, a session that has ended
            raise AuthenticationError(f"cannot get AWS credentials: {error}") from error
    profiles = [
        Path(os.environ.get(variable) or Path.home() / ".aws" / name)
        for variable, name in (("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials"))
    ]
    if os.environ.get("AWS_PROFILE") or any(path.is_file() for path in profiles):
        raise AuthenticationError(
            "AWS profiles are set up here, and reading them needs boto3",
            hint="Run `pip install boto3`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )
    return None
