"""From a request to machines: what is there already under its key, then place after place until there are enough."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Final

from textnlp_fast.errors import (
    AuthenticationError,
    BudgetExceededError,
    CapacityError,
    ConflictError,
    NoPlanError,
    PriceTooHighError,
    ProviderUnavailableError,
    QuotaError,
    TextnlpFastError,
    UnknownRegionError,
)
from textnlp_fast.gpu.resources.candidates import Candidate, Plan
from textnlp_fast.gpu.resources.journal import Journal
from textnlp_fast.gpu.resources.launching import Launcher, TakenError, mismatch, summed
from textnlp_fast.gpu.resources.records import InstanceRecord, LaunchRecord, Phase
from textnlp_fast.gpu.resources.requests import AcquireRequest

__all__ = ["Held", "acquisition_of", "gather"]

Held = tuple[LaunchRecord, InstanceRecord]

#: Errors after which another place may have what this one has not.
_ELSEWHERE: Final = (
    AuthenticationError,
    CapacityError,
    ConflictError,
    PriceTooHighError,
    ProviderUnavailableError,
    QuotaError,
    UnknownRegionError,
)


def acquisition_of(owner: str, key: str | None) -> str:
    """The name of an acquisition, the same for the same key of the same owner: a part of its launches' ids."""
    if key is None:
        return f"a{secrets.token_hex(10)}"
    return f"k{hashlib.sha256(f'{owner}|{key}'.encode()).hexdigest()[:20]}"


def gather(
    request: AcquireRequest,
    acquisition: str,
    *,
    journal: Journal,
    launcher: Launcher,
    plan: Callable[[], Plan],
    alive: Callable[[LaunchRecord], list[InstanceRecord]],
    give_back: Callable[[list[Held]], None],
) -> list[Held]:
    """As many instances as asked for, or at least the least of them.

    `alive` says which instances of a record are alive, `give_back` ends instances. Raises the error that all places
    agree on, or CapacityError; then nothing that this call launched is left.
    """
    held: list[Held] = []
    errors: list[tuple[str, TextnlpFastError]] = []
    records = journal.records(acquisition) if request.key is not None else []
    for record in records:
        held += _taken_up(record, request, launcher, alive, errors)
    number = 1 + max((record.number for record in records), default=-1)
    new: list[Held] = []
    if len(held) < request.instances:
        try:
            candidates = list(plan().candidates)
        except (NoPlanError, PriceTooHighError):
            if len(held) < request.least_instances:
                raise
            candidates = []
        while candidates and len(held) + len(new) < request.instances:
            candidate = candidates.pop(0)
            missing = request.instances - len(held) - len(new)
            least = 1 if request.spread else max(1, request.least_instances - len(held) - len(new))
            try:
                record = launcher.attempt(
                    candidate,
                    request,
                    acquisition=acquisition,
                    number=number,
                    count=missing,
                    least=min(least, missing),
                    last=not candidates,
                )
                new += [(record, one) for one in record.instances if one.state.alive]
            except TakenError:
                # Another process asks under the same key: what it gets is ours, too.
                candidates.insert(0, candidate)
                record, _ = journal.load(_key(acquisition, number))
                held += _taken_up(record, request, launcher, alive, errors)
            except BudgetExceededError as error:
                # What failed lately is tried last, and may be cheaper.
                errors.append((candidate.name, error))
                candidates = [one for one in candidates if one.usd_per_hour < candidate.usd_per_hour]
                if not journal.store.exists(_key(acquisition, number)):
                    continue  # a number that is not taken is the next one's, for whoever asks under this key
            except _ELSEWHERE as error:
                errors.append((candidate.name, error))
                candidates = [one for one in candidates if not _rules_out(error, candidate, one)]
            except TextnlpFastError:
                give_back(new)
                raise
            number += 1
            if not request.spread and len(held) + len(new) >= request.least_instances:
                break
    if len(held) + len(new) >= request.least_instances:
        return [*held, *new]
    give_back(new)
    raise (
        summed(errors)
        if errors
        else CapacityError(f"only {len(held) + len(new)} of {request.least_instances} instances could be had")
    )


def _taken_up(
    record: LaunchRecord,
    request: AcquireRequest,
    launcher: Launcher,
    alive: Callable[[LaunchRecord], list[InstanceRecord]],
    errors: list[tuple[str, TextnlpFastError]],
) -> list[Held]:
    """What an attempt under the same key has, asked for again where its end is not known."""
    if record.phase not in (Phase.INTENDED, Phase.LAUNCHED):
        return []
    if record.phase is Phase.LAUNCHED and not any(one.state.alive for one in record.instances):
        return []
    other = mismatch(record, request)
    if other is None and not launcher.reaches(record):
        other = f"it is in {record.provider} {record.region}, and that is no place of this call"
    if other is not None:
        raise ConflictError(
            f"the key {request.key!r} is that of another request, for {record.count} x {record.instance_type} in "
            f"{record.zone or record.region}: {other}",
            hint="Give every request a key of its own, ask as before, or end what the key holds.",
        )
    if record.phase is Phase.INTENDED:
        try:
            record = launcher.carry_out(record, request, last=True)
        except _ELSEWHERE as error:
            if isinstance(error, (ProviderUnavailableError, ConflictError)):
                raise  # going on elsewhere could make two of it
            errors.append((f"{record.instance_type} in {record.zone or record.region}", error))
            return []
    return [(record, one) for one in alive(record)]


def _rules_out(error: TextnlpFastError, tried: Candidate, other: Candidate) -> bool:
    """Whether what failed in one place fails in another for the same reason."""
    here, there = tried.place, other.place
    if isinstance(error, AuthenticationError):
        return here.provider == there.provider
    if isinstance(error, (CapacityError, PriceTooHighError)) and there in {
        one.place for one in tried.alternatives
    }:
        return True  # it was asked for with the other
    same_region = (here.provider, here.region) == (there.provider, there.region)
    if isinstance(error, UnknownRegionError) and here.zone is None:
        return same_region
    if isinstance(error, QuotaError):
        return (
            same_region
            and here.market == there.market
            and tried.instance_type.name == other.instance_type.name
        )
    return False


def _key(acquisition: str, number: int) -> str:
    return f"launches/{acquisition}/{number:06d}.json"
