"""What SkyPilot's errors mean to whoever launches. By name: the classes of `sky.exceptions` that its SDK documents."""

from __future__ import annotations

import concurrent.futures
import re
from typing import Final

from textnlp_fast.errors import (
    AuthenticationError,
    CapacityError,
    InstanceNotFoundError,
    InvalidInputError,
    ProviderUnavailableError,
    QuotaError,
    TextnlpFastError,
)
from textnlp_fast.gpu.providers.calling import Meaning

__all__ = ["NAMES", "meaning_of"]

_LOG_IN: Final = frozenset(
    {
        "ApiServerAuthenticationError",
        "CloudUserIdentityError",
        "ClusterOwnerIdentityMismatchError",
        "InvalidCloudCredentials",
        "NoCloudAccessError",
        "NoWorkspaceAccessError",
        "PermissionDeniedError",
        "UserRequestRejectedByPolicy",
    }
)
_AGAIN: Final = frozenset(
    {
        "ApiServerConnectionError",
        "ClusterStatusFetchingError",
        "ConcurrentWorkerExhaustedError",
        "ExecutionPoolFullError",
        "NetworkError",
        "RequestInterruptedError",
        "ServerTemporarilyUnavailableError",
    }
)
_UNKNOWN: Final = frozenset({"ClusterDoesNotExist", "NoClusterLaunchedError"})
_WRONG: Final = frozenset(
    {
        "APINotSupportedError",
        "APIVersionMismatchError",
        "ClusterNotUpError",
        "InvalidCloudConfigs",
        "InvalidClusterNameError",
        "InvalidSkyPilotConfigError",
        "NotSupportedError",
        "ProvisionPrechecksError",
        "ProvisionUnsupportedError",
        "ResourcesMismatchError",
    }
)
#: All classes that are told apart here.
NAMES: Final = _LOG_IN | _AGAIN | _UNKNOWN | _WRONG | {"ResourcesUnavailableError", "ClusterSetUpError"}


def meaning_of(error: Exception, *, action: str, place: str) -> Meaning:
    """What an exception of SkyPilot's SDK means. What is neither its nor the network's is raised."""
    if isinstance(error, TextnlpFastError):
        return Meaning(error)
    name = type(error).__name__
    words = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())[:500]
    said = f"{action} in {place}: {words} ({name})"
    if name == "ResourcesUnavailableError":
        told = [words, *(str(one) for one in getattr(error, "failover_history", None) or ())]
        if any(re.search(r"\bquota", text, re.IGNORECASE) for text in told):
            return Meaning(QuotaError(said))
        return Meaning(CapacityError(said))
    if name in _LOG_IN:
        return Meaning(AuthenticationError(said, hint="Run `sky check`: it says which cloud lacks what."))
    if name in _AGAIN:
        return Meaning(ProviderUnavailableError(said), again=True)
    if name in _UNKNOWN:
        return Meaning(InstanceNotFoundError(said, hint="`sky status` shows what there is."))
    if name in _WRONG or isinstance(error, ValueError):
        return Meaning(InvalidInputError(said))
    if isinstance(error, (OSError, concurrent.futures.CancelledError)) or name == "ClusterSetUpError":
        return Meaning(ProviderUnavailableError(said))
    if type(error).__module__.partition(".")[0] in {"sky", "requests", "aiohttp", "httpx"}:
        return Meaning(ProviderUnavailableError(said))
    raise error
