"""What Azure Resource Manager's errors mean to whoever launches.

Codes: https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors and
https://learn.microsoft.com/azure/virtual-machines/error-codes-spot.
"""

from __future__ import annotations

import re
from typing import Final

from textnlp_fast.errors import (
    AuthenticationError,
    CapacityError,
    ConflictError,
    InstanceNotFoundError,
    InvalidInputError,
    PriceTooHighError,
    ProviderUnavailableError,
    QuotaError,
    TextnlpFastError,
    UnknownRegionError,
)
from textnlp_fast.gpu.providers.calling import Meaning, NoCredentialsError, asked_pause_s

__all__ = ["error_of_code", "meaning_of"]

_LOG_IN: Final = "Run `az login`, or give the machine a managed identity."
_ALLOW: Final = (
    "Assign a role that may do it; docs/guide/policies/azure-fleet-role.json has all that is needed."
)
_CAPACITY: Final = frozenset(
    {
        "AllocationFailed",
        "AllocationTimeout",
        "InsufficientCapacity",
        "OverconstrainedAllocationRequest",
        "OverconstrainedZonalAllocationRequest",
        "SkuNotAvailable",
        "ZonalAllocationFailed",
    }
)
_QUOTA: Final = frozenset(
    {
        "PublicIPCountLimitReached",
        "QuotaExceeded",
        "ResourceQuotaExceeded",
        "StaticPublicIPCountLimitReached",
        "SubscriptionQuotaReached",
    }
)
_AGAIN: Final = frozenset(
    {
        "AnotherOperationInProgress",
        "ConflictingConcurrentWriteNotAllowed",
        "InternalExecutionError",
        "InternalServerError",
        "OperationPreempted",
        "ResourceGroupBeingMoved",
        "RetryableError",
        "RetryableErrorDueToAnotherOperation",
        "ServerTimeout",
        "ServiceUnavailable",
        "SubscriptionRequestsThrottled",
        "TooManyRequests",
    }
)
_EXPIRED: Final = frozenset(
    {
        "AuthenticationFailed",
        "ExpiredAuthenticationToken",
        "InvalidAuthenticationToken",
        "InvalidAuthenticationTokenTenant",
    }
)
_NOT_ALLOWED: Final = frozenset(
    {
        "AuthorizationFailed",
        "DisallowedProvider",
        "LinkedAuthorizationFailed",
        "ReadOnlyDisabledSubscription",
        "RequestDisallowedByPolicy",
        "ScopeLocked",
        "SubscriptionNotFound",
    }
)
_NO_PLACE: Final = frozenset(
    {
        "AvailabilityZoneNotSupported",
        "InvalidAvailabilityZone",
        "InvalidResourceLocation",
        "LocationNotAvailableForResourceType",
        "LocationNotSupportAvailabilityZones",
        "NoRegisteredProviderFound",
        "ResourceTypeNotSupportAvailabilityZones",
    }
)


def meaning_of(error: Exception, *, action: str, place: str) -> Meaning:
    """What an exception of Azure's client means. What is no error of the API or of the way there is raised."""
    if isinstance(error, TextnlpFastError):
        return Meaning(error)
    if isinstance(error, ValueError) and type(error).__name__ == "JSONDecodeError":
        return Meaning(ProviderUnavailableError(f"{action} in {place}: the answer is no JSON"), again=True)
    if type(error).__module__.partition(".")[0] != "azure":
        raise error
    status = getattr(error, "status_code", None)
    words = " ".join(str(getattr(error, "message", None) or error).split())[:500]
    if status is None:
        # The default chain goes on with a paragraph for each way to log in that it tried.
        words = words.partition(" Attempted credentials")[0]
        if type(error).__name__ == "CredentialUnavailableError":
            return Meaning(NoCredentialsError(f"no Azure credentials: {words}", hint=_LOG_IN))
        if type(error).__name__ == "ClientAuthenticationError":
            return Meaning(AuthenticationError(f"no Azure credentials that do: {words}", hint=_LOG_IN))
        # No connection, no answer in time, an answer cut short or no JSON.
        return Meaning(ProviderUnavailableError(f"{action} in {place}: {words}"), again=True)
    if int(status) < 400:
        # No answer of the API's: something between here and there speaks in its place.
        unreadable = ProviderUnavailableError(f"{action} in {place}: the answer cannot be read: {words}")
        return Meaning(unreadable, again=True)
    odata = getattr(error, "error", None)
    code, message = str(getattr(odata, "code", None) or ""), str(getattr(odata, "message", None) or words)
    meaning = error_of_code(code, message, action=action, place=place, status=int(status))
    again = isinstance(meaning, ProviderUnavailableError)
    return Meaning(meaning, again=again, after_s=asked_pause_s(error) if again else None)


def error_of_code(code: str, message: str, *, action: str, place: str, status: int = 0) -> TextnlpFastError:
    """The error of ours for a code, as answers and the states of machines have it. `status` 0: of no answer."""
    message = " ".join(message.split())[:500]
    said = f"{action} in {place}: {message} ({code or status})"
    if re.search(r"\bmax(imum)? ?price\b", message, re.IGNORECASE):
        return PriceTooHighError(said)
    if code in _CAPACITY:
        return CapacityError(said)
    if code in _QUOTA or re.search(r"\bquota\b", message, re.IGNORECASE):
        return _quota(said, message)
    if code in _AGAIN or status in {408, 429} or (status >= 500 and code not in _NO_PLACE):
        return ProviderUnavailableError(said)
    if code in _EXPIRED or status == 401:
        return AuthenticationError(said, hint=_LOG_IN)
    if code in _NOT_ALLOWED or status == 403:
        return AuthenticationError(said, hint=_ALLOW)
    if code == "MissingSubscriptionRegistration":
        hint = "Run `az provider register --namespace Microsoft.Compute`, and the same for Microsoft.Network."
        return AuthenticationError(said, hint=hint)
    if code in _NO_PLACE:
        return UnknownRegionError(said, hint="`zones` of the provider lists those that offer a size.")
    if code == "ResourceGroupNotFound":
        return InvalidInputError(said, hint="Make it with `az group create`, or set AZURE_RESOURCE_GROUP.")
    if status == 404 and not code:
        # Not in Azure's words: a proxy's 404 does not say that a machine is gone.
        return ProviderUnavailableError(said)
    if status == 404 and code in {"ResourceNotFound", "NotFound"}:
        return InstanceNotFoundError(said, hint="`textnlp-fast gpu list` shows what there is.")
    if status in {409, 412} and code in {"", "Conflict", "PreconditionFailed", "ConditionNotMet"}:
        return ConflictError(said, hint="Run the command again.")
    if status or re.match(r"Invalid|Image|PlatformImage|Gallery|BadRequest|OperationNotAllowed", code):
        return InvalidInputError(said)
    return ProviderUnavailableError(said)


def _quota(said: str, message: str) -> QuotaError:
    found = re.search(r"approved (.+?) quota|for ([\w ]*?(?:Family|Cores)\w*)", message, re.IGNORECASE)
    error = QuotaError(said)
    error.quota = (found[1] or found[2]) if found else None
    return error
