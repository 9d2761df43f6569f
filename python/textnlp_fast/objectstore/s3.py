"""Where an S3 bucket is and who may read it: endpoint, region and the default chain of credentials."""

from __future__ import annotations

import importlib.util
import os
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from obstore.store import S3Store

from textnlp_fast.errors import AuthenticationError, InvalidInputError
from textnlp_fast.objectstore.endpoints import check_endpoint
from textnlp_fast.objectstore.keys import check_prefix
from textnlp_fast.objectstore.remote import RemoteBackend, client_options, retry_options

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Credential

    from textnlp_fast.objectstore.store import OpenArguments

__all__ = ["ENDPOINT_VARIABLES", "open_s3"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
# The last is obstore's own name; looked at here, so that no endpoint goes unchecked.
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CREDENTIAL_LIFE = timedelta(
    minutes=5
)  # how long obstore may keep what boto3 gave; boto3 refreshes by itself
_PROVIDED_BY_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def open_s3(bucket: str, prefix: str, opening: OpenArguments) -> RemoteBackend:
    """A bucket, or a folder of one. Nothing is sent yet."""
    if not _BUCKET.fullmatch(bucket):
        raise InvalidInputError(f"{bucket!r} is no bucket name: 3 to 63 of a-z, 0-9, '.' and '-'")
    prefix = check_prefix(prefix)
    endpoint = opening.endpoint_url or next(filter(None, map(os.environ.get, ENDPOINT_VARIABLES)), None)
    plain_http = check_endpoint(endpoint, allow_http=opening.allow_http) if endpoint else False
    provider = _credentials()
    config: S3Config = {
        "region": _region(opening.region, provider),
        "conditional_put": "etag",  # an environment variable could turn it off, and all safety with it
        "skip_signature": False,
        # Objects go one by one here, and of a batch some servers ask for the permission to delete from all of a bucket.
        "disable_bulk_delete": True,
    }
    if endpoint:
        config["endpoint"] = endpoint.rstrip("/")
    encryption = opening.encryption
    if encryption is not None:
        config["server_side_encryption"] = "aws:kms" if encryption.kms_key else "AES256"
        if encryption.kms_key:
            config["sse_kms_key_id"] = encryption.kms_key
            config["sse_bucket_key_enabled"] = encryption.bucket_key

    def connect(tries: int) -> S3Store:
        return S3Store(
            bucket,
            prefix=prefix or None,
            config=config,
            client_options=client_options(opening.timeout_s, plain_http=plain_http),
            retry_config=retry_options(opening.timeout_s, tries),
            credential_provider=provider,
        )

    url = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
    return RemoteBackend(url, patient=connect(opening.retries), once=connect(0))


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
