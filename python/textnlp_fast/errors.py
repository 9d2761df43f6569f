"""Every error this package raises, grouped by what the caller does next.

Each carries a sentence that says what went wrong and, in ``hint``, what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = [
    "AuthenticationError",
    "BudgetExceededError",
    "CapacityError",
    "ConflictError",
    "CorruptDataError",
    "DeploymentNotFoundError",
    "DeviceError",
    "DigestMismatchError",
    "InstanceNotFoundError",
    "InternalError",
    "InvalidInputError",
    "LoadCancelledError",
    "LoadTimeoutError",
    "MissingObjectError",
    "MissingPackageError",
    "ModelNotFoundError",
    "NoPlanError",
    "NotAllowedError",
    "ObjectExistsError",
    "ObjectNotFoundError",
    "OutOfSpaceError",
    "PriceTooHighError",
    "PromiseBrokenError",
    "ProviderUnavailableError",
    "QueryError",
    "QuotaError",
    "RepositoryNotFoundError",
    "SafetensorsError",
    "SignatureError",
    "SignatureRequiredError",
    "SourceChangedError",
    "StorageUnavailableError",
    "TextnlpFastError",
    "TransferCancelledError",
    "TransferTimeoutError",
    "UnknownGPUTypeError",
    "UnknownInstanceTypeError",
    "UnknownRegionError",
    "UnsafeFileError",
    "UnsupportedFormatError",
    "UntrustedServerError",
    "VersionExistsError",
    "VersionNotFoundError",
    "WrongBaseError",
    "naming",
]


class TextnlpFastError(Exception):
    """Base of all errors here. ``hint`` says what to do next; ``exit_code`` is what the CLI exits with."""

    exit_code = 1
    default_hint = ""
    #: Which of many things in one call the error is about, counted from 0, where the call says so.
    job: int | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = self.default_hint if hint is None else hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n{self.hint}" if self.hint else message


# --- fix the call -------------------------------------------------------------------------------------------


class InvalidInputError(TextnlpFastError, ValueError):
    """An argument or an input file is wrong: fix the call."""

    exit_code = 2


class QueryError(InvalidInputError):
    """A search cannot be read; ``position`` is the character, counted from 0, at which."""

    default_hint = 'Write, for example: name = "org/*" and stage = production and tag.team = nlp'

    def __init__(self, message: str, *, position: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.position = position


class SafetensorsError(InvalidInputError):
    """A safetensors file breaks the format; nothing was read from it."""

    default_hint = (
        "Write the file again with a current safetensors library; a partial download looks like this too."
    )


class UnsafeFileError(InvalidInputError):
    """A pickle file, or a path into `.git`, was given: such files run code, so none is read or written."""

    default_hint = (
        "Convert it on a machine you trust: safetensors.torch.save_file(torch.load(path, "
        "weights_only=True), out)."
    )


class RepositoryNotFoundError(InvalidInputError, LookupError):
    """There is no repository at that place."""

    exit_code = 3
    default_hint = "Check the place's name; the first push makes a repository."


class ModelNotFoundError(InvalidInputError, LookupError):
    """The repository has no model of that name."""

    exit_code = 3


class VersionNotFoundError(InvalidInputError, LookupError):
    """The model has no such version."""

    exit_code = 3


class DeploymentNotFoundError(InvalidInputError, LookupError):
    """The model is not deployed there."""

    exit_code = 3


class VersionExistsError(InvalidInputError):
    """The version is published already, with other content; versions never change."""

    exit_code = 4
    default_hint = "Push under a new version number."


class UnknownGPUTypeError(InvalidInputError):
    """There is no GPU type of that name here."""


class UnknownInstanceTypeError(InvalidInputError):
    """The catalogue has no instance type of that name."""


class UnknownRegionError(InvalidInputError):
    """The provider has no region or zone of that name, or this account may not use it."""


class InstanceNotFoundError(InvalidInputError, LookupError):
    """The provider knows no such instance."""

    exit_code = 3


class NoPlanError(InvalidInputError):
    """No machine of the catalogue serves the workload; ``rejected`` says for each type why."""

    exit_code = 13
    default_hint = "Loosen the tightest of the limits: targets, budget, regions, GPU types, quantisation."
    rejected: tuple[tuple[str, str], ...] = ()


class WrongBaseError(InvalidInputError):
    """A patch was applied to a model that it does not start from; nothing was written.

    ``is_target`` is true if it is what the patch leads to.
    """

    exit_code = 4
    is_target: bool = False


# --- fetch again, or restore --------------------------------------------------------------------------------


class CorruptDataError(TextnlpFastError):
    """Bytes failed a check. ``position`` is the byte offset in the input, where known."""

    exit_code = 5
    default_hint = "Fetch the data again; if it stays so, restore the object from a copy."
    position: int | None = None


class DigestMismatchError(CorruptDataError):
    """Content differs from the digest it was stored under."""


class PromiseBrokenError(CorruptDataError):
    """An approximate version is further from the true one than its patch promised.

    ``tensor`` is which, ``bound`` what it broke: the approximation as it was asked for (``max_ulp=2``), one of
    ``max_ulp``, ``max_abs``, ``dropped_l2``, ``exact``, ``elements``, or ``names``.
    """

    default_hint = "Make the patch again, against the version that readers hold."

    def __init__(self, message: str, *, tensor: str, bound: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.tensor = tensor
        self.bound = bound


class SignatureError(CorruptDataError):
    """Bytes are not signed, or not by whom they should be."""

    default_hint = "Do not use them. Check which key signs and which one is trusted."


class MissingObjectError(CorruptDataError):
    """An object that a manifest names is not in the repository."""

    default_hint = (
        "Restore it from a backup or push the version again from its files; `verify` lists all "
        "that is missing."
    )


class ObjectNotFoundError(MissingObjectError, LookupError):
    """There is no object of the name that the caller gave: nothing is broken, as where a manifest names it."""

    exit_code = 3
    default_hint = "Check the name."


class SignatureRequiredError(SignatureError):
    """A version lacks a signature that the reader asks for, or has one that does not hold; nothing was written."""

    exit_code = 12
    default_hint = (
        "Do not use it. Ask whoever publishes the model to sign it; "
        "if it was signed, somebody changed the repository."
    )


# --- upgrade ------------------------------------------------------------------------------------------------


class UnsupportedFormatError(TextnlpFastError):
    """Data written by a newer version of this package."""

    exit_code = 6
    default_hint = "Upgrade textnlp-fast."
    position: int | None = None


# --- read again and retry -----------------------------------------------------------------------------------


class ConflictError(TextnlpFastError):
    """Another writer was first: read the new state and try again.

    ``may_have_applied`` is true when an answer was lost on the way: this writer's bytes may have been stored
    for a moment and then replaced by the other's, which only the new state itself can tell.
    """

    exit_code = 7
    may_have_applied: bool = False


class ObjectExistsError(ConflictError):
    """A create-only object is there already, with other content; ``existing`` holds that content."""

    existing: bytes = b""


class StorageUnavailableError(TextnlpFastError):
    """The object store did not answer in time, after all retries."""

    exit_code = 8
    default_hint = "Check the network and that the store is up, then run the command again."


class UntrustedServerError(StorageUnavailableError):
    """The server's certificate is by nobody whom this machine believes, or is another server's: nothing was sent."""

    default_hint = (
        "Where the store's certificate is by an authority of your own, name the file with that authority's "
        "certificate in SSL_CERT_FILE. Where it should not be, somebody may stand in between: ask who runs the store."
    )


class SourceChangedError(ConflictError):
    """What is being transferred was replaced while it was: nothing of the two was mixed."""

    default_hint = "Run the transfer again: it begins anew with what is there now."


class TransferCancelledError(TextnlpFastError):
    """A transfer was told to stop; ``kept`` says whether another run can go on from where it stood."""

    exit_code = 130
    kept: bool = False


class TransferTimeoutError(TextnlpFastError, TimeoutError):
    """A transfer took longer than it was given, or stood still; what was moved is kept."""

    exit_code = 8
    default_hint = (
        "Run the transfer again: it goes on where it stood. Give it more time if the network is slow."
    )


# --- rent elsewhere, or pay more ------------------------------------------------------------------------------


class CapacityError(TextnlpFastError):
    """The cloud has no such instance to give there now."""

    exit_code = 14
    default_hint = "Try another zone, region, market or GPU type, or the same again later."


class QuotaError(TextnlpFastError):
    """The account may not have more of these there; ``quota`` is the limit's name, where the cloud says it."""

    exit_code = 14
    default_hint = "Ask the cloud for a higher quota, or launch in another region."
    quota: str | None = None


class PriceTooHighError(TextnlpFastError):
    """All that is offered costs more than the cap; nothing was launched."""

    exit_code = 15
    default_hint = "Raise the cap, or allow spot, other regions or other GPU types."


class BudgetExceededError(TextnlpFastError):
    """Launching this would spend more than the budget; nothing was launched."""

    exit_code = 15
    default_hint = "Raise the budget, or terminate what is not needed."


class ProviderUnavailableError(TextnlpFastError):
    """The cloud's control plane did not answer in time, or throttled every try."""

    exit_code = 8
    default_hint = "Run the command again: what was ordered already is found, not ordered twice."


# --- log in, free space, fall back, report ------------------------------------------------------------------


class AuthenticationError(TextnlpFastError):
    """The object store refused the credentials."""

    exit_code = 9
    default_hint = (
        "Log in with the provider's own tool (for AWS: `aws sso login`, or a role), or check what "
        "the login is allowed: for a bucket, its policy."
    )


class NotAllowedError(TextnlpFastError):
    """The registry's rules leave this to somebody else; nothing was changed."""

    exit_code = 9


class OutOfSpaceError(TextnlpFastError):
    """The local disk is full; partial files were removed."""

    exit_code = 10
    default_hint = "Free space and run the command again."


class DeviceError(TextnlpFastError):
    """No usable accelerator, or it failed."""

    exit_code = 11
    default_hint = (
        "Move the arrays to host memory, where the same call runs on the processor; `textnlp-fast info` says what "
        "was found of a device."
    )


class SwapCancelledError(TextnlpFastError):
    """A swap was told to stop; the old weights are in place."""

    exit_code = 130


class LoadCancelledError(TextnlpFastError):
    """A load was told to stop; nothing was handed over."""

    exit_code = 130


class LoadTimeoutError(TextnlpFastError, TimeoutError):
    """A load took longer than it was given; nothing was handed over."""

    exit_code = 8
    default_hint = "Give it more time (timeout_s), or look at what the store and the disk are doing."


class SwapRefusedError(TextnlpFastError):
    """One of several ranks could not take the new weights: ``ranks`` says which. All have the old ones."""

    default_hint = "All ranks have the old weights. Mend what the rank says, and swap again."
    ranks: tuple[int, ...] = ()


class NotRestoredError(TextnlpFastError):
    """A swap failed, and so did putting back the old weights: ``tensors`` names those that are not whole."""

    default_hint = "Do not use these weights: load the model anew."
    tensors: tuple[str, ...] = ()


class MissingPackageError(TextnlpFastError, ImportError):
    """An optional package is not installed; ``hint`` is the command that installs it."""


class InternalError(TextnlpFastError):
    """A promise of this package was broken."""

    exit_code = 70
    default_hint = "Please report this with the command that led to it."


# --- which of many ------------------------------------------------------------------------------------------


@contextmanager
def naming(names: Sequence[str] | None, count: int) -> Iterator[None]:
    """Errors of a call about ``count`` things say by its name which of them they are about.

    An error that is about no single one, as that of a launch, names the first and says how many they were. Raises
    :class:`InvalidInputError` if there are not as many names.
    """
    if names is not None and len(names) != count:
        raise InvalidInputError(f"there are {len(names)} names for {count} tensors")
    try:
        yield
    except TextnlpFastError as error:
        if names and error.args:
            if error.job is not None:
                about = f"tensor {names[error.job]!r}"
            elif count == 1:
                about = f"tensor {names[0]!r}"
            else:
                about = f"tensor {names[0]!r} and {count - 1} more"
            error.args = (f"{about}: {error.args[0]}", *error.args[1:])
        raise
