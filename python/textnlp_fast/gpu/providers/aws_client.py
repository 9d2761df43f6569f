"""A client of EC2 by boto3: which region, whose credentials, how long it waits. Retries are the provider's own."""

from __future__ import annotations

import difflib
import functools
import os
from typing import Any

from textnlp_fast.errors import AuthenticationError, UnknownRegionError
from textnlp_fast.gpu.providers import calling

__all__ = ["connected", "imported"]

#: A module of boto3's. Raises MissingPackageError where there is none.
imported = functools.partial(calling.imported, provider="aws", package="boto3", extra="aws")


def connected(
    region: str, *, endpoint_url: str | None, profile: str | None, timeout_s: float, service: str = "ec2"
) -> Any:
    """A client of `service`. Raises UnknownRegionError, and AuthenticationError for a profile that does not exist."""
    config = imported("botocore.config").Config(
        connect_timeout=min(timeout_s, 10.0),
        read_timeout=timeout_s,
        # Retries are ours: botocore takes "no capacity", which EC2 answers with a 500, for a reason to ask again.
        retries={"total_max_attempts": 1, "mode": "standard"},
        user_agent_extra="textnlp-fast",
    )
    try:
        session = _session(profile)
        known = sorted(
            {
                name
                for partition in session.get_available_partitions()
                for name in session.get_available_regions("ec2", partition_name=partition)
            }
        )
        if region not in known:
            near = difflib.get_close_matches(region, known, 1, 0.6)
            raise UnknownRegionError(
                f"AWS has no region {region!r}",
                hint=f"Did you mean {near[0]}?" if near else "A new one may need a newer boto3.",
            )
        return session.client(service, region_name=region, endpoint_url=endpoint_url, config=config)
    except imported("botocore.exceptions").ProfileNotFound as error:
        raise AuthenticationError(
            str(error),
            hint="`aws configure list-profiles` says which there are; AWS_PROFILE is the one that is taken.",
        ) from error


def _session(profile: str | None) -> Any:
    """A session of its own, for credentials may differ, that shares what botocore read of EC2's description."""
    boto3 = imported("boto3")
    core = imported("botocore.session").Session(profile=profile)
    core.register_component("data_loader", _data_loader())
    return boto3.Session(botocore_session=core)


@functools.lru_cache(maxsize=1)
def _data_loader() -> Any:
    return imported("botocore.loaders").create_loader(os.environ.get("AWS_DATA_PATH"))
