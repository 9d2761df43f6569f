"""Encryption that the provider does where the objects lie: what to ask for, never a key itself."""

from __future__ import annotations

import re
from dataclasses import dataclass

from textnlp_fast.errors import InvalidInputError

__all__ = ["ServerSideEncryption"]

# An ARN, an alias, an identifier, or Google's projects/.../cryptoKeys/...: printable, no blanks.
_KEY_NAME = re.compile(r"[A-Za-z0-9:/_.+=,@-]{1,2048}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSideEncryption:
    """How a store shall encrypt what is written; without it the bucket's own default holds.

    ``kms_key`` names a key of the provider's key service: on S3 its ARN, identifier or ``alias/...``, on Google Cloud
    its resource name ``projects/P/locations/L/keyRings/R/cryptoKeys/K``. ``None`` asks for the provider's own keys.
    ``bucket_key`` (S3 only) lets S3 derive keys from one a bucket, which saves most requests to the key service.

    Keys that the customer sends along (SSE-C, CPK) are not taken: they would have to be present wherever a version is
    read, S3 turns them off for new buckets, and losing one loses every version.
    """

    kms_key: str | None = None
    bucket_key: bool = False

    def __post_init__(self) -> None:
        if self.kms_key is not None and not _KEY_NAME.fullmatch(self.kms_key):
            raise InvalidInputError(
                "kms_key does not look like the name of a key",
                hint="Give the key's ARN, alias or resource name, not the key itself.",
            )
        if self.bucket_key and self.kms_key is None:
            raise InvalidInputError("bucket_key=True is for encryption under a kms_key")
