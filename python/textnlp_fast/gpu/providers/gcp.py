"""Compute Engine, through google-cloud-compute. A launch is one bulk order."""

from __future__ import annotations

import datetime
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from textnlp_fast.errors import (
    ConflictError,
    InstanceNotFoundError,
    InvalidInputError,
    TextnlpFastError,
    UnknownRegionError,
)
from textnlp_fast.gpu.providers import gcp_requests
from textnlp_fast.gpu.providers.calling import Patience, at_once
from textnlp_fast.gpu.providers.contract import (
    LAUNCH_TAG,
    OWNER_TAG,
    Instance,
    LaunchOutcome,
    LaunchRequest,
    PriceOf,
    Provider,
    check_request,
    deleted_since,
    refuse_other_type,
    refuse_over_cap,
)
from textnlp_fast.gpu.providers.gcp_client import Compute
from textnlp_fast.gpu.providers.gcp_errors import operation_error
from textnlp_fast.gpu.providers.gcp_requests import (
    filter_for,
    instance_from,
    instance_names,
    last_part,
    moment,
    parse_instance_id,
    request_id,
)

__all__ = ["GcpProvider"]

# An order that failed and left nothing may be placed again: so often, before somebody should look into it.
_MOST_ATTEMPTS: Final = 32
# Bulk orders are over long before; what is missing of an older launch was ended since, and is not made again.
_SETTLED_S: Final = 3600.0
_TAG_TRIES: Final = 8


class GcpProvider(Provider):
    """One region of Compute Engine. Instances are called `zone/name`.

    `project` defaults to GCP_PROJECT_ID, then to the credentials' own; those are Google's application default ones, or
    `credentials`. `image` is an image's or a family's path (`projects/P/global/images/family/F`). `price_of` gives the
    prices that caps are held against: Compute Engine takes none. Machines get no public address but with `external_ip`,
    and no service account but `service_account`. A Spot machine that is taken back stays as a stopped one, with the
    reason. Operations are waited for up to `deadline_s`; ends and stops up to `settle_s`, to hear of early failures.
    """

    name = "gcp"

    def __init__(
        self,
        region: str,
        *,
        project: str | None = None,
        image: str | None = None,
        network: str | None = None,
        subnetwork: str | None = None,
        external_ip: bool = False,
        service_account: str | None = None,
        price_of: PriceOf | None = None,
        credentials: Any = None,
        endpoint_url: str | None = None,
        timeout_s: float = 30.0,
        deadline_s: float = 300.0,
        settle_s: float = 5.0,
        retries: int = 5,
        first_pause_s: float = 0.3,
    ) -> None:
        if not re.fullmatch(r"[a-z]+(-[a-z]+)+\d+", region, re.ASCII):
            raise UnknownRegionError(
                f"{region!r} is no region of Google's", hint="Regions are written like us-central1."
            )
        self.region = region
        self._image = image
        self._options = {
            "network": network,
            "subnetwork": subnetwork,
            "external_ip": external_ip,
            "service_account": service_account,
        }
        self._price_of = price_of
        self._settle_s = settle_s
        self._api = Compute(
            region,
            project=project,
            credentials=credentials,
            endpoint_url=endpoint_url,
            patience=Patience(
                timeout_s=timeout_s, deadline_s=deadline_s, retries=retries, first_pause_s=first_pause_s
            ),
        )
        self._zones: list[str] = []
        self._reasons: dict[str, str | None] = {}
        self._lock = threading.RLock()

    # --- launching --------------------------------------------------------------------------------------------

    def launch(self, request: LaunchRequest) -> LaunchOutcome:
        check_request(request)
        labels = {**request.tags, LAUNCH_TAG: request.launch_id}
        labels.setdefault(OWNER_TAG, "")
        gcp_requests.check_labels(labels)
        image = request.image or self._image
        if image is None:
            raise InvalidInputError(
                "no image was given, and Google has no default with NVIDIA's driver",
                hint="Name one: --image on the command line, image= in Python; `gcloud compute images list` shows what "
                "there is.",
            )
        body = gcp_requests.bulk_insert(request, image=image, labels=labels, options=self._options)
        until = self._api.patience.until()
        before = self.list_instances({LAUNCH_TAG: request.launch_id})
        refuse_other_type(request, before)
        if len(before) >= request.count or any(_age_s(one) > _SETTLED_S for one in before):
            return _outcome(request, before, len(before), None)
        if not before:
            price = self._price_of(request.instance_type, request.market) if self._price_of else None
            refuse_over_cap(request, price)
        operation = self._order(request, body, until)
        return self._harvest(request, operation, until)

    def _order(self, request: LaunchRequest, body: dict[str, Any], until: float) -> Any:
        """The operation of this launch, ended: found by its request id, or begun.

        Compute Engine takes a request id once, and so answers a repetition with the end that the first one came to. An
        order that failed and was rolled back before this call began is not the answer to it: the next id is tried.
        """
        scope = request.zone or self.region
        for attempt in range(_MOST_ATTEMPTS):
            token = request_id(request.launch_id, scope, attempt)
            known = self._api.operation_of(request.zone, token, until)
            if known is None or known.status.name != "DONE":
                begun = known or self._begin(request, body, token, until)
                return self._api.wait(begun, until, "bulkInsert", must_end=True)
            if not known.error.errors:
                return known
        raise ConflictError(
            f"launch {request.launch_id} failed {_MOST_ATTEMPTS} times in {scope}",
            hint="Launch under another id.",
        )

    def _begin(self, request: LaunchRequest, body: dict[str, Any], token: str, until: float) -> Any:
        order = {
            "bulk_insert_instance_resource_resource": body,
            "request_id": token,
        }
        if request.zone is None:
            return self._api.ask("RegionInstances", "bulk_insert", {**order, "region": self.region}, until)
        self._check_zone(request.zone)
        return self._api.ask("Instances", "bulk_insert", {**order, "zone": request.zone}, until)

    def _harvest(self, request: LaunchRequest, operation: Any, until: float) -> LaunchOutcome:
        """What an ended order came to. Leftovers of one that failed are ended, then its error is raised."""
        status = operation.instances_bulk_insert_operation_metadata.per_location_status
        zones = [last_part(place) for place in status] or ([request.zone] if request.zone else [])
        zones = zones or self._region_zones(until)
        ids = [f"{zone}/{name}" for zone in zones for name in instance_names(request)]
        made = [one for one in self._look_at(ids, until) if one.launch_id == request.launch_id]
        refuse_other_type(request, made)
        created = sum(one.created_vm_count for one in status.values()) if status else len(made)
        if operation.error.errors:
            self.terminate([one.instance_id for one in made])
            raise operation_error(
                self._failures(operation, zones, until),
                action="bulkInsert",
                place=request.zone or self.region,
            )
        if len(made) < created:
            made += self._gone(request, operation, {one.instance_id for one in made}, zones, until)
        why = None
        if created < request.count:
            why = "; ".join(text for _, text in self._failures(operation, zones, until)) or None
        return _outcome(request, made, max(created, len(made)), why)

    def _failures(self, operation: Any, zones: list[str], until: float) -> list[tuple[str, str]]:
        """Why machines of an order did not come: its own errors, then those of each machine's operation."""
        errors = list(operation.error.errors)
        for one in self._group(operation, zones, until):
            errors += one.error.errors
        return list(dict.fromkeys((one.code, one.message) for one in errors))

    def _group(self, operation: Any, zones: list[str], until: float) -> list[Any]:
        """The operations that an order was split into: one for each machine."""
        group, found = operation.operation_group_id, []
        for zone in zones if group else ():
            scope = {"zone": zone, "filter": f'operationGroupId="{group}"'}
            found += [
                one
                for one in self._api.pages("ZoneOperations", scope, until)
                if one.operation_type == "insert"
            ]
        return found

    def _gone(
        self, request: LaunchRequest, operation: Any, known: set[str], zones: list[str], until: float
    ) -> list[Instance]:
        """Machines that were made and are gone: Compute Engine knows nothing of them any more but the order."""
        ids = [
            f"{last_part(one.zone)}/{last_part(one.target_link)}"
            for one in self._group(operation, zones, until)
            if not one.error.errors
        ]
        return [
            deleted_since(
                request,
                one,
                provider=self,
                zone=one.partition("/")[0],
                launched_at=moment(operation.insert_time),
            )
            for one in ids
            if one not in known
        ]

    # --- looking ----------------------------------------------------------------------------------------------

    def describe(self, instance_ids: Sequence[str]) -> list[Instance]:
        return self._look_at(list(dict.fromkeys(instance_ids)), self._api.patience.until())

    def _look_at(self, ids: Sequence[str], until: float) -> list[Instance]:
        """Each by itself: unlike lists, a look at one instance is never behind."""
        places = [place for place in (parse_instance_id(one, self.region) for one in ids) if place]
        seen = at_once(lambda place: self._get(place, until), places)
        return [self._instance(one, until) for one in seen if one is not None]

    def _get(self, place: tuple[str, str], until: float) -> Any | None:
        asked = {"zone": place[0], "instance": place[1]}
        try:
            return self._api.ask("Instances", "get", asked, until)
        except (InstanceNotFoundError, UnknownRegionError):
            return None

    def list_instances(self, tags: Mapping[str, str] | None = None) -> list[Instance]:
        until, found, wanted = self._api.patience.until(), [], filter_for(tags)
        for zone in self._region_zones(until) if wanted is not None else ():
            asked = {"zone": zone, "filter": wanted}
            found += [self._instance(one, until) for one in self._api.pages("Instances", asked, until)]
        return found

    def zones(self, instance_type: str) -> list[str]:
        machine, until = gcp_requests.parse_machine(instance_type), self._api.patience.until()
        offering = []
        for zone in self._region_zones(until):
            place = {"zone": zone}
            asked = [("MachineTypes", {**place, "machine_type": machine.machine_type})]
            if machine.accelerator:
                asked.append(("AcceleratorTypes", {**place, "accelerator_type": machine.accelerator}))
            try:
                for client, request in asked:
                    self._api.ask(client, "get", request, until)
            except (InvalidInputError, InstanceNotFoundError):  # not offered there
                continue
            offering.append(zone)
        return offering

    def _region_zones(self, until: float) -> list[str]:
        with self._lock:
            if not self._zones:
                region = self._api.ask("Regions", "get", {"region": self.region}, until)
                self._zones = sorted(last_part(zone) for zone in region.zones)
            return self._zones

    def _check_zone(self, zone: str) -> None:
        zones = self._region_zones(self._api.patience.until())
        if zone not in zones:
            raise UnknownRegionError(
                f"{self.region} has no zone {zone!r}", hint=f"There are: {', '.join(zones)}."
            )

    def _instance(self, described: Any, until: float) -> Instance:
        reason = None
        if described.status == "TERMINATED" and described.scheduling.provisioning_model == "SPOT":
            reason = self._why_stopped(described, until)
        return instance_from(described, region=self.region, reason=reason)

    def _why_stopped(self, described: Any, until: float) -> str | None:
        """Whether Compute Engine took the machine back: only the operations of the zone tell."""
        key = f"{described.id}/{described.last_stop_timestamp}"
        if key not in self._reasons:
            asked = {
                "zone": last_part(described.zone),
                "filter": f'(operationType="compute.instances.preempted") AND (targetId="{described.id}")',
            }
            taken = self._api.pages("ZoneOperations", asked, until)
            text = next((one.status_message for one in taken if one.status_message), None)
            self._reasons[key] = f"preempted: {text or 'Compute Engine took it back'}" if taken else None
        return self._reasons[key]

    # --- changing ---------------------------------------------------------------------------------------------

    def stop(self, instance_ids: Sequence[str]) -> None:
        self._change("stop", instance_ids)

    def start(self, instance_ids: Sequence[str]) -> None:
        self._change("start", instance_ids)

    def terminate(self, instance_ids: Sequence[str]) -> None:
        self._change("delete", instance_ids)

    def _change(self, action: str, instance_ids: Sequence[str]) -> None:
        """Orders all, then hears how they went: starts to their end, for only that tells of missing capacity."""
        until, begun, problems = self._api.patience.until(), [], []
        for one in dict.fromkeys(instance_ids):
            try:
                operation = self._order_change(action, one, until)
            except TextnlpFastError as error:  # the others are still ordered
                problems.append(error)
                continue
            if operation is not None:
                begun.append(operation)
        settled = until if action == "start" else min(until, time.monotonic() + self._settle_s)
        for operation in begun:
            try:
                ended = self._api.wait(operation, settled, action, must_end=action == "start")
            except InstanceNotFoundError:
                continue
            if ended.error.errors:
                errors = [(one.code, one.message) for one in ended.error.errors]
                if action != "delete" or any(not code.startswith("RESOURCE_NOT_FOUND") for code, _ in errors):
                    problems.append(operation_error(errors, action=action, place=last_part(ended.zone)))
        if problems:
            raise problems[0]

    def _order_change(self, action: str, instance_id: str, until: float) -> Any | None:
        place = parse_instance_id(instance_id, self.region)
        try:
            if place is None:
                raise InstanceNotFoundError(f"{instance_id!r} is no instance of {self.region}")
            asked = {"zone": place[0], "instance": place[1]}
            return self._api.ask("Instances", action, asked, until)
        except (InstanceNotFoundError, UnknownRegionError):
            if action == "delete":
                return None
            raise

    def tag(self, instance_ids: Sequence[str], tags: Mapping[str, str]) -> None:
        gcp_requests.check_labels(tags)
        until = self._api.patience.until()
        for one in dict.fromkeys(instance_ids) if tags else ():
            self._tag(one, tags, until)

    def _tag(self, instance_id: str, tags: Mapping[str, str], until: float) -> None:
        """Labels are replaced as a whole, under a fingerprint: who was overtaken reads them again."""
        place = parse_instance_id(instance_id, self.region)
        for _ in range(_TAG_TRIES):
            described = self._get(place, until) if place else None
            if described is None or place is None:
                raise InstanceNotFoundError(f"{self.region} has no instance {instance_id!r}")
            labels = dict(described.labels)
            if tags.items() <= labels.items():
                return
            asked = {
                "zone": place[0],
                "instance": place[1],
                "instances_set_labels_request_resource": {
                    "labels": {**labels, **tags},
                    "label_fingerprint": described.label_fingerprint,
                },
            }
            try:
                ended = self._api.wait(
                    self._api.ask("Instances", "set_labels", asked, until), until, "setLabels", must_end=True
                )
            except ConflictError:
                continue
            if ended.error.errors:
                errors = [(error.code, error.message) for error in ended.error.errors]
                raise operation_error(errors, action="setLabels", place=place[0])
            return
        raise ConflictError(
            f"the labels of {instance_id} keep changing", hint="Run the command again when others are done."
        )


def _outcome(request: LaunchRequest, found: Sequence[Instance], made: int, why: str | None) -> LaunchOutcome:
    missing = max(0, request.count - made)
    if missing and why is None:
        why = f"Compute Engine made {made} of the {request.count} asked for"
    return LaunchOutcome(instances=tuple(found), missing=missing, why=why if missing else None)


def _age_s(instance: Instance) -> float:
    return (datetime.datetime.now(datetime.timezone.utc) - instance.launched_at).total_seconds()
