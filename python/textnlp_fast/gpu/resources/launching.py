"""One attempt to launch: written down, asked for, written down again. A crash between any two steps is mended later.

1. The record is created, as intended. Before this nothing can have been launched.
2. The provider is asked, with a client token that follows from the record: asked again, it launches nothing more.
3. The record says what came of it. Until then whoever finds it, by the same key or at a start, looks by the token.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial

from textnlp_fast.errors import (
    AuthenticationError,
    BudgetExceededError,
    CapacityError,
    ConflictError,
    InvalidInputError,
    PriceTooHighError,
    ProviderUnavailableError,
    QuotaError,
    TextnlpFastError,
    UnknownRegionError,
)
from textnlp_fast.gpu.providers.calling import NoCredentialsError
from textnlp_fast.gpu.providers.contract import OWNER_TAG, LaunchOutcome, LaunchRequest, Provider
from textnlp_fast.gpu.resources.candidates import Candidate, Plan
from textnlp_fast.gpu.resources.failures import Failures, Place
from textnlp_fast.gpu.resources.journal import Journal
from textnlp_fast.gpu.resources.ledger import check_budget
from textnlp_fast.gpu.resources.processes import at_work_on, this_process
from textnlp_fast.gpu.resources.records import Alternative, LaunchRecord, Phase, abandoned, failed, launched
from textnlp_fast.gpu.resources.requests import MARKETS, AcquireRequest, Budget
from textnlp_fast.telemetry import operation

__all__ = ["Launcher", "TakenError", "digest_of", "mismatch", "summed"]


#: Errors after which nothing can be there: those of the request, and of credentials that are not there.
_REFUSALS = (InvalidInputError, NoCredentialsError, PriceTooHighError)


class TakenError(Exception):
    """Another process has made an attempt of this number under the same key."""


def digest_of(user_data: str | None) -> str | None:
    """What the journal keeps of user data, which may hold secrets."""
    return None if user_data is None else hashlib.sha256(user_data.encode()).hexdigest()


class Launcher:
    """Makes attempts, with the journal and the memory of failures."""

    def __init__(
        self,
        journal: Journal,
        failures: Failures,
        *,
        owner: str,
        budget: Budget,
        provider_at: Callable[[str, str], Provider],
        now: Callable[[], datetime.datetime],
    ) -> None:
        self._journal = journal
        self._failures = failures
        self._owner = owner
        self._budget = budget
        self._provider_at = provider_at
        self._now = now

    def attempt(
        self,
        candidate: Candidate,
        request: AcquireRequest,
        *,
        acquisition: str,
        number: int,
        count: int,
        least: int,
        last: bool,
    ) -> LaunchRecord:
        """A new launch; otherwise as :meth:`carry_out`. Raises BudgetExceededError, and TakenError, too."""
        if candidate.alternatives and self._budget != Budget():
            candidate = self._within_budget(candidate, self._journal.records(), request, count)
        record = self._record(candidate, request, acquisition, number, count, least)
        self._check_budget(record, request)
        with at_work_on(record):
            if not self._journal.create(record):
                raise TakenError(record.launch_id)
            try:
                # Again, with the record there: of two that fit by themselves only, at most one passes.
                self._check_budget(record, request)
            except BudgetExceededError as error:
                self._journal.update(record.key, _if_intended(partial(failed, refused=True), error))
                raise
            return self._carry_out(record, request, last, first=True)

    def carry_out(self, record: LaunchRecord, request: AcquireRequest, *, last: bool) -> LaunchRecord:
        """Asks for what the record intends, for the first time or again; returns what was written down of it.

        Raises what the provider raises. Where it did not answer, the launch is abandoned; unless it is the last that
        can be tried and has a key, under which it can be asked for again.
        """
        with at_work_on(record):
            return self._carry_out(record, request, last)

    def affordable(self, plan: Plan, request: AcquireRequest, acquisition: str) -> Plan:
        """The plan without what is over the budget now, which it rejects. Raises BudgetExceededError if that is all.

        What the request's key holds already is not bought again.
        """
        if self._budget == Budget():
            return plan
        records = self._journal.records()
        held = sum(
            record.count
            if record.phase is Phase.INTENDED
            else sum(1 for one in record.instances if one.state.alive)
            for record in records
            if record.acquisition == acquisition
        )
        missing = request.instances - held
        if missing <= 0:
            return plan
        candidates, rejected, refusals = [], list(plan.rejected), []
        for planned in plan.candidates:
            candidate = self._within_budget(planned, records, request, missing)
            try:
                self._check(records, candidate.usd_per_hour * missing, request)
            except BudgetExceededError as error:
                rejected.append((candidate.name, str(error.args[0])))
                refusals.append((candidate.name, error))
            else:
                candidates.append(candidate)
        if not candidates and refusals:
            raise summed([*refusals])
        return Plan(candidates=tuple(candidates), rejected=tuple(rejected))

    def reaches(self, record: LaunchRecord) -> bool:
        """Whether the record's place is among those that are asked."""
        try:
            self._provider_at(record.provider, record.region)
        except InvalidInputError:
            return False
        return True

    def _carry_out(
        self, record: LaunchRecord, request: AcquireRequest, last: bool, *, first: bool = False
    ) -> LaunchRecord:
        provider = self._provider_at(record.provider, record.region)
        try:
            with operation("gpu.launch"):
                outcome = provider.launch(_launch_request(record, request))
        except (ProviderUnavailableError, ConflictError) as error:
            # Nobody knows what came of it.
            if not (last and request.key is not None):
                self._journal.update(record.key, _if_intended(abandoned, error))
            self._remember(record, error)
            raise
        except (
            AuthenticationError,
            CapacityError,
            InvalidInputError,
            PriceTooHighError,
            QuotaError,
        ) as error:
            # Asked again, what fails now may have come off before.
            refused = first and isinstance(error, _REFUSALS)
            stored = self._journal.update(record.key, _if_intended(partial(failed, refused=refused), error))
            if stored.phase is Phase.LAUNCHED:
                return stored  # another process asked at the same time, and got it
            # Who has no login, or asks for what is none, learns nothing of the place by it.
            if isinstance(error, UnknownRegionError) or not isinstance(
                error, (InvalidInputError, NoCredentialsError)
            ):
                self._remember(record, error)
            raise
        return self._written(record, outcome, provider)

    def _remember(self, record: LaunchRecord, error: TextnlpFastError) -> None:
        """Of each type that was asked for: none of them was to be had."""
        for place in _places(record):
            self._failures.remember(place, error, self._now())

    def _written(self, record: LaunchRecord, outcome: LaunchOutcome, provider: Provider) -> LaunchRecord:
        def change(current: LaunchRecord) -> LaunchRecord:
            if current.phase in (Phase.INTENDED, Phase.LAUNCHED):
                return launched(current, outcome.instances)
            return current

        stored = self._journal.update(record.key, change)
        if stored.phase is not Phase.LAUNCHED:
            # Another process took it for failed, and has gone on elsewhere.
            provider.terminate([one.instance_id for one in outcome.instances])
            raise CapacityError(f"launch {record.launch_id} was settled as {stored.phase} meanwhile")
        (place,) = _places(stored)
        if self._failures.of(place, self._now()) is not None:
            self._failures.forget(place)
        return stored

    def _check_budget(self, record: LaunchRecord, request: AcquireRequest) -> None:
        if self._budget == Budget():
            return
        others = [one for one in self._journal.records() if one.launch_id != record.launch_id]
        self._check(others, record.most_usd_per_hour * record.count, request)

    def _check(self, records: Sequence[LaunchRecord], more: Decimal, request: AcquireRequest) -> None:
        check_budget(
            self._budget,
            records,
            more_usd_per_hour=more,
            expected_hours=request.expected_hours,
            now=self._now(),
        )

    def _within_budget(
        self, candidate: Candidate, records: Sequence[LaunchRecord], request: AcquireRequest, count: int
    ) -> Candidate:
        """Without the alternatives that there is no money for: the cheapest alone may still be had."""

        def is_affordable(one: Candidate) -> bool:
            try:
                self._check(records, one.usd_per_hour * count, request)
            except BudgetExceededError:
                return False
            return True

        return replace(candidate, alternatives=tuple(filter(is_affordable, candidate.alternatives)))

    def _record(
        self,
        candidate: Candidate,
        request: AcquireRequest,
        acquisition: str,
        number: int,
        count: int,
        least: int,
    ) -> LaunchRecord:
        place = candidate.place
        return LaunchRecord(
            acquisition=acquisition,
            number=number,
            owner=self._owner,
            phase=Phase.INTENDED,
            provider=place.provider,
            region=place.region,
            zone=place.zone,
            market=place.market,
            instance_type=place.instance_type,
            gpu_type=str(candidate.instance_type.gpu_type),
            gpu_count=candidate.instance_type.gpu_count,
            count=count,
            min_count=least,
            usd_per_hour=candidate.usd_per_hour,
            on_demand_usd_per_hour=candidate.on_demand_usd_per_hour,
            max_usd_per_hour=request.max_usd_per_hour,
            image=request.image_for(place.provider),
            disk_gib=request.disk_gib,
            user_data_digest=digest_of(request.user_data),
            tags=dict(request.tags),
            created_at=self._now(),
            process=this_process(),
            alternatives=tuple(
                Alternative(
                    instance_type=one.place.instance_type,
                    usd_per_hour=one.usd_per_hour,
                    on_demand_usd_per_hour=one.on_demand_usd_per_hour,
                )
                for one in candidate.alternatives
            ),
        )


def _places(record: LaunchRecord) -> list[Place]:
    """Where a launch is tried: of each type that it may come off with."""
    types = (record.instance_type, *(one.instance_type for one in record.alternatives))
    return [Place(record.provider, record.region, record.zone, kind, record.market) for kind in types]


def _if_intended(
    change: Callable[[LaunchRecord, BaseException], LaunchRecord], error: BaseException
) -> Callable[[LaunchRecord], LaunchRecord]:
    """The change, for records that nobody has settled yet."""
    return lambda record: change(record, error) if record.phase is Phase.INTENDED else record


def _launch_request(record: LaunchRecord, request: AcquireRequest) -> LaunchRequest:
    """What the provider is asked: of the record, so that it is the same whenever it is asked."""
    return LaunchRequest(
        launch_id=record.launch_id,
        instance_type=record.instance_type,
        alternatives=tuple(one.instance_type for one in record.alternatives),
        count=record.count,
        min_count=record.min_count,
        market=record.market,
        zone=record.zone,
        image=record.image,
        disk_gib=record.disk_gib,
        user_data=request.user_data,
        max_usd_per_hour=record.max_usd_per_hour,
        tags={**record.tags, OWNER_TAG: record.owner},
    )


def mismatch(record: LaunchRecord, request: AcquireRequest) -> str | None:
    """Why a record under the request's key is not of this very request; None if it can be.

    Whoever asks with a cap, a market or a place is not to be handed what is outside of them.
    """
    names = " or ".join(map(str, request.gpu_types))
    cap = request.max_usd_per_hour
    asked_for = (
        (
            any(str(one) == record.gpu_type for one in request.gpu_types),
            f"it has {record.gpu_type}, not {names}",
        ),
        (
            record.gpu_count >= request.gpu_count,
            f"it has {record.gpu_count:g} GPUs, not {request.gpu_count:g}",
        ),
        (record.market in MARKETS[request.market], f"it is {record.market}, not {request.market}"),
        (
            cap is None or float(record.most_usd_per_hour) <= cap,
            f"at {record.most_usd_per_hour:.4f} USD an hour it is over the cap of {cap or 0:.4f}",
        ),
        (_among(record.provider, request.providers), f"it is of {record.provider}"),
        (_among(record.region, request.regions), f"it is in {record.region}"),
        (record.zone is None or _among(record.zone, request.zones), f"it is in {record.zone}"),
        *(
            (_among(kind, request.instance_types), f"it is a {kind}")
            for kind in (record.instance_type, *(one.instance_type for one in record.alternatives))
        ),
        (record.image == request.image_for(record.provider), "it has another image"),
        (
            record.disk_gib == request.disk_gib,
            f"its disk has {record.disk_gib} GiB, not {request.disk_gib}",
        ),
        (record.user_data_digest == digest_of(request.user_data), "it has other user data"),
        (dict(record.tags) == dict(request.tags), "it has other tags"),
    )
    return next((why for holds, why in asked_for if not holds), None)


def _among(value: str, wanted: Sequence[str] | None) -> bool:
    return wanted is None or value in wanted


def summed(errors: list[tuple[str, TextnlpFastError]]) -> TextnlpFastError:
    """One error for all places that were tried: of their class, if they agree, else CapacityError."""
    kinds = {type(error) for _, error in errors}
    if len(errors) == 1:
        return errors[0][1]
    said = "; ".join(f"{name}: {error.args[0]}" for name, error in errors[:5])
    more = f"; and {len(errors) - 5} more" if len(errors) > 5 else ""
    kind = next(iter(kinds)) if len(kinds) == 1 else CapacityError
    return kind(f"none of {len(errors)} places had it: {said}{more}")
