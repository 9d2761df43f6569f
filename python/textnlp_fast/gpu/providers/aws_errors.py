"""What EC2's error codes mean to whoever launches.

Codes: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html and, for spot,
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-request-status.html (bad parameters).
"""

from __future__ import annotations

from typing import Any, Final

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
from textnlp_fast.gpu.providers.calling import Meaning, NoCredentialsError

__all__ = [
    "NOT_FOUND",
    "MissingTemplateError",
    "client_meaning",
    "code_of",
    "meaning_of",
    "message_of",
    "translated",
]

NOT_FOUND: Final = frozenset({"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"})

_NO_TEMPLATE: Final = frozenset(
    {
        "InvalidLaunchTemplateId.NotFound",
        "InvalidLaunchTemplateId.VersionNotFound",
        "InvalidLaunchTemplateName.NotFoundException",
    }
)

_CAPACITY: Final = frozenset(
    {
        "InsufficientCapacity",
        "InsufficientCapacityOnHost",
        "InsufficientHostCapacity",
        "InsufficientInstanceCapacity",
        "InsufficientFreeAddressesInSubnet",
        "InsufficientReservedInstanceCapacity",
        "ReservationCapacityExceeded",
        "UnfulfillableCapacity",
        # The type is not offered in the zone, or not in this market: another place may have it.
        "Unsupported",
        "UnsupportedHostConfiguration",
    }
)
_QUOTA: Final = frozenset(
    {
        "InstanceLimitExceeded",
        "MaxSpotInstanceCountExceeded",
        "MaxSpotFleetRequestCountExceeded",
        "VcpuLimitExceeded",
        "SpotInstanceCountExceeded",
        "VolumeLimitExceeded",
        "AddressLimitExceeded",
        "ResourceLimitExceeded",
        # A new account may launch once AWS has looked at it.
        "PendingVerification",
    }
)
_PRICE: Final = frozenset({"SpotMaxPriceTooLow", "InvalidSpotPrice", "PriceTooLow"})
_LOG_IN: Final = frozenset(
    {
        "AuthFailure",
        "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
        "Blocked",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_NOT_ALLOWED: Final = frozenset(
    {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "OperationNotPermitted"}
)
_AGAIN: Final = frozenset(
    {
        "EC2ThrottledException",
        "InternalError",
        "InternalFailure",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "ResourceContention",
        "ScalingActivityInProgress",
        "ServerInternal",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "Unavailable",
    }
)
_BUSY: Final = frozenset({"IncorrectInstanceState", "IncorrectState"})


class MissingTemplateError(ConflictError):
    """EC2 does not know a launch template, or does not show yet that it has it."""


def code_of(error: Any) -> str:
    """The code of a botocore ClientError, without the `Client.` or `Server.` that old ones begin with."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return code.removeprefix("Client.").removeprefix("Server.")


def message_of(error: Any) -> str:
    """EC2's own words, on one line. The encoded message of a refusal says who may decode it, and is cut."""
    words = str(error.response.get("Error", {}).get("Message", "")).split("Encoded authorization failure")[0]
    return " ".join(words.split())[:500]


def client_meaning(error: Exception, *, action: str, region: str) -> Meaning:
    """What an exception of botocore's means. What is none of its is raised."""
    if type(error).__module__.partition(".")[0] not in ("botocore", "boto3"):
        raise error
    if isinstance(getattr(error, "response", None), dict):
        meaning = translated(error, action=action, region=region)
        return Meaning(meaning, again=isinstance(meaning, ProviderUnavailableError))
    names = {one.__name__ for one in type(error).__mro__}
    if names & {"NoCredentialsError", "PartialCredentialsError"}:
        hint = "Run `aws configure` or `aws sso login`, or use a role."
        return Meaning(NoCredentialsError("no AWS credentials found", hint=hint))
    if names & {"TokenRetrievalError", "CredentialRetrievalError"}:
        return Meaning(NoCredentialsError(f"AWS credentials cannot be got: {error}"))
    if "ParamValidationError" in names:
        return Meaning(InvalidInputError(f"{action}: {' '.join(str(error).split())}"))
    # No connection, no answer in time, an answer cut short.
    return Meaning(ProviderUnavailableError(f"{action} in {region}: {error}"), again=True)


def translated(error: Any, *, action: str, region: str) -> TextnlpFastError:
    """The error of this package that says what to do about a ClientError of botocore's."""
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return meaning_of(code_of(error), message_of(error), status=status, action=action, region=region)


def meaning_of(code: str, message: str, *, status: int, action: str, region: str) -> TextnlpFastError:
    """The same for a code that stands in an answer: a fleet tells what it could not launch in a good one."""
    said = f"{action} in {region}: {message or 'no reason given'} ({code or status})"
    if code in _CAPACITY:
        return CapacityError(said)
    if code in _QUOTA:
        quota = QuotaError(said)
        quota.quota = code
        return quota
    if code in _PRICE:
        return PriceTooHighError(said)
    if code == "OptInRequired":
        return UnknownRegionError(said, hint=f"Enable {region} for the account, or use another region.")
    if code in _NOT_ALLOWED:
        return AuthenticationError(
            said, hint="Allow the action; docs/guide/policies/aws-fleet.json lists what is needed."
        )
    if code in _LOG_IN:
        return AuthenticationError(
            said, hint="Log in again (`aws sso login`, or new keys), and check the machine's clock."
        )
    if code in _NO_TEMPLATE:
        return MissingTemplateError(said)
    if code == "InvalidLaunchTemplateName.AlreadyExistsException":
        return ConflictError(said)
    if code in NOT_FOUND:
        return InstanceNotFoundError(said, hint="`textnlp-fast gpu list` shows what there is.")
    if code in _BUSY:
        return ConflictError(said, hint="Wait until it has settled, then run the command again.")
    if code == "IdempotentParameterMismatch":
        return ConflictError(said, hint="Give every launch an id of its own.")
    if code in _AGAIN:
        return ProviderUnavailableError(said)
    if code == "InvalidParameterValue" and "availability zone" in message.lower():
        return UnknownRegionError(said, hint="`zones` of the provider lists those that offer a type.")
    if code.startswith(("Invalid", "Missing", "Unknown", "Malformed")) or code == "UnsupportedOperation":
        return InvalidInputError(said)
    # What is new in EC2 is told apart by its status: 4xx says that the same again will not do.
    return ProviderUnavailableError(said) if status >= 500 or not status else InvalidInputError(said)
