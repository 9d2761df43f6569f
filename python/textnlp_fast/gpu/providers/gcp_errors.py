"""What Compute Engine's errors mean to whoever launches.

Reasons of refused requests: https://cloud.google.com/compute/docs/api/errors and
https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-bulk-vm-creation; codes of failed operations:
https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-vm-creation.
"""

from __future__ import annotations

import re
from typing import Any, Final

from textnlp_fast.errors import (
    AuthenticationError,
    CapacityError,
    ConflictError,
    InstanceNotFoundError,
    InvalidInputError,
    ObjectNotFoundError,
    ProviderUnavailableError,
    QuotaError,
    TextnlpFastError,
    UnknownRegionError,
)
from textnlp_fast.gpu.providers.calling import Meaning, NoCredentialsError, asked_pause_s

__all__ = ["meaning_of", "operation_error"]

_LOG_IN: Final = "Run `gcloud auth application-default login`, or give the machine a service account."
_ALLOW: Final = (
    "Grant the permission that is named; docs/guide/policies/gcp-fleet-role.json lists all that are needed."
)
_THROTTLED: Final = frozenset(
    {
        "rateLimitExceeded",
        "userRateLimitExceeded",
        "concurrentLimitExceeded",
        "resourceNotReady",
        "backendError",
        "RATE_LIMIT_EXCEEDED",
    }
)
_QUOTA: Final = frozenset({"quotaExceeded", "limitExceeded", "dailyLimitExceeded"})
_CAPACITY: Final = frozenset({"insufficientCapacity", "stockout"})
_SWITCHED_OFF: Final = frozenset({"accessNotConfigured", "SERVICE_DISABLED"})


def meaning_of(error: Exception, *, action: str, place: str) -> Meaning:
    """What an exception of Google's client means. What is no error of the API or of the way there is raised."""
    family = type(error).__module__.partition(".")[0]
    if isinstance(getattr(error, "code", None), int) and hasattr(error, "errors"):
        return _refused(error, action=action, place=place)
    if family == "google" and "auth" in type(error).__module__:
        if type(error).__name__ == "TransportError":
            unavailable = ProviderUnavailableError(
                f"{action} in {place}: no token to be had: {_words(error)}"
            )
            return Meaning(unavailable, again=True)
        # The first is raised where there are none; any other may come in the middle of a launch.
        none = type(error).__name__ == "DefaultCredentialsError"
        kind = NoCredentialsError if none else AuthenticationError
        return Meaning(kind(f"Google's credentials do not do: {_words(error)}", hint=_LOG_IN))
    if family in {"requests", "urllib3"} or isinstance(error, OSError):
        return Meaning(ProviderUnavailableError(f"{action} in {place}: {_words(error)}"), again=True)
    if isinstance(error, TextnlpFastError):
        return Meaning(error)
    if type(error).__name__ in {"JSONDecodeError", "ParseError"} or isinstance(error, UnicodeError):
        # No answer of the API's: something between here and there speaks in its place.
        unreadable = ProviderUnavailableError(
            f"{action} in {place}: the answer cannot be read: {_words(error)}"
        )
        return Meaning(unreadable, again=True)
    if isinstance(error, (TypeError, ValueError)):
        # Google's client refuses what does not fit its messages.
        return Meaning(InvalidInputError(f"{action} in {place}: {_words(error)}"))
    raise error


def _refused(error: Any, *, action: str, place: str) -> Meaning:
    """What an HTTP error of the API means."""
    status = int(error.code)
    reasons = {str(one.get("reason", "")) for one in error.errors or () if isinstance(one, dict)}
    reasons.add(str(getattr(error, "reason", None) or ""))
    message = _words(error)
    said = f"{action} in {place}: {message} ({', '.join(sorted(filter(None, reasons))) or status})"
    if reasons & _CAPACITY:
        return Meaning(CapacityError(said))
    if reasons & _THROTTLED or status == 429:
        return Meaning(ProviderUnavailableError(said), again=True, after_s=asked_pause_s(error))
    if reasons & _QUOTA:
        return Meaning(_quota(said))
    if reasons & _SWITCHED_OFF:
        hint = "Enable it: `gcloud services enable compute.googleapis.com`; it takes some minutes."
        return Meaning(AuthenticationError(said, hint=hint))
    if status == 401:
        return Meaning(AuthenticationError(said, hint=_LOG_IN))
    if status == 403:
        return Meaning(AuthenticationError(said, hint=_ALLOW))
    if status == 404 and not any(reasons):
        # Not in the API's words: a proxy's 404 does not say that a machine is gone.
        return Meaning(ProviderUnavailableError(said), again=True)
    if status == 404:
        return Meaning(_not_found(said, message))
    if status in {409, 412}:
        return Meaning(ConflictError(said, hint="Run the command again."))
    if status >= 500 or status == 408:
        return Meaning(ProviderUnavailableError(said), again=True, after_s=asked_pause_s(error))
    if "zone" in message.lower() and "unknown" in message.lower():
        return Meaning(UnknownRegionError(said))
    return Meaning(InvalidInputError(said))


def _not_found(said: str, message: str) -> TextnlpFastError:
    if "/instanceGroupManagers/" in message:
        hint = "`gcloud compute instance-groups managed list` shows what there is."
        return ObjectNotFoundError(said, hint=hint)
    if "/instances/" in message:
        return InstanceNotFoundError(said, hint="`textnlp-fast gpu list` shows what there is.")
    if re.search(r"/(regions|zones)/[^/']+'", message):
        return UnknownRegionError(said, hint="`gcloud compute regions list` shows what there is.")
    return InvalidInputError(said)


def _quota(said: str) -> QuotaError:
    found = re.search(r"Quota '([A-Za-z0-9_-]+)' exceeded", said)
    error = QuotaError(said)
    error.quota = found[1] if found else None
    return error


def operation_error(errors: list[tuple[str, str]], *, action: str, place: str) -> TextnlpFastError:
    """What the errors (code, message) with which an operation ended mean; the one that says most speaks."""
    said = f"{action} in {place}: " + "; ".join(f"{' '.join(text.split())} ({code})" for code, text in errors)
    codes = {code.upper() for code, _ in errors}
    if any("QUOTA" in code for code in codes):
        return _quota(said)
    if any(code.startswith(("ZONE_RESOURCE_POOL_EXHAUSTED", "RESOURCE_POOL_EXHAUSTED")) for code in codes):
        return CapacityError(said)
    if codes & {
        "STOCKOUT",
        "INSUFFICIENT_CAPACITY",
        "VM_MIN_COUNT_NOT_REACHED",
        "RESOURCE_OPERATION_STOCKOUT",
    }:
        return CapacityError(said)
    if codes & {"PERMISSIONS_ERROR", "PERMISSION_DENIED", "FORBIDDEN"}:
        return AuthenticationError(said, hint=_ALLOW)
    if codes & {"RESOURCE_ALREADY_EXISTS", "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", "CONDITION_NOT_MET"}:
        return ConflictError(said, hint="Run the command again.")
    if any(
        code.startswith(("RESOURCE_NOT_FOUND", "INVALID", "UNSUPPORTED", "BAD_REQUEST")) for code in codes
    ):
        return InvalidInputError(said)
    return ProviderUnavailableError(said)


def _words(error: Exception) -> str:
    """The error's own words on one line, without the address that was asked."""
    text = " ".join(str(getattr(error, "message", None) or error).split())
    return re.sub(r"^(GET|POST|DELETE|PUT|PATCH) https?://\S+: ", "", text)[:500]
