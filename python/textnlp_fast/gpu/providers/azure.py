"""Azure's virtual machines, through azure-mgmt-compute and azure-mgmt-network."""

from __future__ import annotations

import datetime
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from textnlp_fast.errors import (
    ConflictError,
    InstanceNotFoundError,
    InvalidInputError,
    ProviderUnavailableError,
    TextnlpFastError,
    UnknownRegionError,
)
from textnlp_fast.gpu.providers import azure_requests
from textnlp_fast.gpu.providers.azure_client import Arm
from textnlp_fast.gpu.providers.azure_machines import Machines
from textnlp_fast.gpu.providers.azure_records import Records
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
from textnlp_fast.gpu.types import Market

__all__ = ["DEFAULT_IMAGE", "AzureProvider"]

DEFAULT_IMAGE: Final = "microsoft-dsvm:ubuntu-hpc:2204:latest"
"""Microsoft's own image with NVIDIA's driver."""
_SUBNET, _KEY = "a subnet", "an SSH key"
_NEEDED: Final = ((_SUBNET, "_subnet"), (_KEY, "_key"))
_WAYS: Final = {
    _SUBNET: "Set TEXTNLP_FAST_AZURE_SUBNET=NETWORK/SUBNET (`az network vnet list` shows them; or --option "
    "azure.subnet=, in Python subnet=).",
    _KEY: "Set TEXTNLP_FAST_AZURE_SSH_PUBLIC_KEY_FILE=~/.ssh/id_ed25519.pub (`ssh-keygen -t ed25519` makes one; or "
    "--option azure.ssh_public_key=@FILE, in Python ssh_public_key=).",
}
_LARGEST_KEY: Final = 1 << 14
_PUBLIC_KEY: Final = re.compile(r"(ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}( [^\r\n]*)?", re.ASCII)
_SIZES_KEPT_S: Final = 600.0
_TAG_TRIES: Final = 8


class AzureProvider(Provider):
    """One region of Azure, in one resource group. Instances are called by their names.

    `resource_group` defaults to AZURE_RESOURCE_GROUP, `subscription` to AZURE_SUBSCRIPTION_ID, `credential` to
    azure-identity's default chain. `subnet` is a subnet's resource id or `network/subnet` of the group,
    `ssh_public_key` (the key, or its file's path) who may log in as `admin`: Azure makes no machine without them.
    `image` is `publisher:offer:sku:version` or a resource id. `price_of` gives the prices that caps on on-demand are
    held against; on spot Azure holds them itself. An evicted spot machine stays, deallocated. Launches and starts are
    waited for up to `deadline_s`, until Azure has found hardware; ends and stops up to `settle_s`.
    """

    name = "azure"

    def __init__(
        self,
        region: str,
        *,
        resource_group: str | None = None,
        subscription: str | None = None,
        subnet: str | None = None,
        ssh_public_key: str | Path | None = None,
        admin: str = "azureuser",
        image: str | None = None,
        public_ip: bool = False,
        price_of: PriceOf | None = None,
        credential: Any = None,
        endpoint_url: str | None = None,
        timeout_s: float = 30.0,
        deadline_s: float = 600.0,
        settle_s: float = 5.0,
        retries: int = 5,
        first_pause_s: float = 0.3,
    ) -> None:
        if not re.fullmatch(r"[a-z]+[a-z0-9]*", region, re.ASCII):
            raise UnknownRegionError(
                f"{region!r} is no region of Azure's", hint="They are written like westeurope."
            )
        self.region = region
        self._subnet = subnet
        self._key = ssh_public_key
        self._admin = admin
        self._image = image
        self._public_ip = public_ip
        self._price_of = price_of
        self._settle_s = settle_s
        self._patience = Patience(
            timeout_s=timeout_s, deadline_s=deadline_s, retries=retries, first_pause_s=first_pause_s
        )
        self._arm = Arm(
            region,
            subscription=subscription,
            resource_group=resource_group,
            credential=credential,
            endpoint_url=endpoint_url,
            patience=self._patience,
        )
        self._machines = Machines(self._arm)
        self._records = Records(self._arm, ssh_public_key=self._public_key)
        self._sizes: tuple[float, list[Mapping[str, Any]]] = (float("-inf"), [])
        self._lock = threading.Lock()

    # --- launching --------------------------------------------------------------------------------------------

    def launch(self, request: LaunchRequest) -> LaunchOutcome:
        check_request(request)
        tags = {**request.tags, LAUNCH_TAG: request.launch_id}
        tags.setdefault(OWNER_TAG, "")
        azure_requests.check_tags(tags)
        until = self._patience.until()
        names = azure_requests.machine_names(request, self.region)
        documents = {name: self._document(request, name, tags) for name in names}
        placed = self._records.placed(request.launch_id, until=until)
        if placed is not None:
            return self._remembered(request, placed, until)
        refuse_other_type(request, self._look_at(names[:1], until), any_case=True)
        if request.market is not Market.SPOT and request.max_usd_per_hour is not None:
            price = self._price_of(request.instance_type, request.market) if self._price_of else None
            refuse_over_cap(request, price)
        self._records.begin(request.launch_id, until=until)
        failures = self._place(documents, until)
        return self._settled(request, names, failures, until)

    def _document(self, request: LaunchRequest, name: str, tags: Mapping[str, str]) -> dict[str, Any]:
        missing = [what for what, value in _NEEDED if not getattr(self, value)]
        if missing:
            raise InvalidInputError(
                f"Azure makes no machine without {' and '.join(missing)}, and none was given",
                hint=" ".join(_WAYS[what] for what in missing),
            )
        subnet = str(self._subnet)
        if not subnet.startswith("/"):
            network, _, inner = subnet.partition("/")
            if not network or not inner or "/" in inner:
                raise InvalidInputError(f"{subnet!r} names no subnet of Azure's", hint=_WAYS[_SUBNET])
            group = f"/subscriptions/{self._arm.subscription()}/resourceGroups/{self._arm.resource_group()}"
            subnet = f"{group}/providers/Microsoft.Network/virtualNetworks/{network}/subnets/{inner}"
        return azure_requests.virtual_machine(
            request,
            name,
            region=self.region,
            image=request.image or self._image or DEFAULT_IMAGE,
            subnet=subnet,
            admin=self._admin,
            ssh_public_key=self._public_key(),
            public_ip=self._public_ip,
            tags=tags,
        )

    def _public_key(self) -> str:
        """The key that was given, or what is in its file; read when it is needed: who looks or ends needs none."""
        given = self._key
        if isinstance(given, Path):
            path = given.expanduser()
            try:
                with path.open("rb") as file:
                    text = file.read(_LARGEST_KEY + 1)[:_LARGEST_KEY].decode().strip()
            except (OSError, ValueError) as error:
                said = getattr(error, "strerror", None) or "it is not UTF-8"
                raise InvalidInputError(
                    f"the SSH key {path} cannot be read: {said}", hint=_WAYS[_KEY]
                ) from None
        else:
            text = (given or "").strip()
        if not _PUBLIC_KEY.fullmatch(text):
            private = " but a private one" if "PRIVATE KEY" in text else ""
            # The text stays out of the message: it may be a secret.
            raise InvalidInputError(f"what was given is no public SSH key{private}", hint=_WAYS[_KEY])
        return text

    def _place(self, documents: Mapping[str, dict[str, Any]], until: float) -> dict[str, TextnlpFastError]:
        """Orders all machines and waits for their hardware; which failed, and why.

        One is ordered before the others: where there is no quota, no right or no such image, one refusal says so.
        """
        first, *others = documents
        failure = self._machines.make(first, documents[first], until=until)
        if failure is not None:
            return dict.fromkeys(documents, failure)
        found = at_once(lambda name: self._machines.make(name, documents[name], until=until), others)
        failures = {name: error for name, error in zip(others, found, strict=True) if error is not None}
        waiting = [name for name in documents if name not in failures]
        ended = at_once(lambda name: self._machines.hardware(name, until=until), waiting)
        failures.update(
            {name: error for name, error in zip(waiting, ended, strict=True) if error is not None}
        )
        return failures

    def _settled(
        self,
        request: LaunchRequest,
        names: Sequence[str],
        failures: Mapping[str, TextnlpFastError],
        until: float,
    ) -> LaunchOutcome:
        """What an order came to. What failed goes with all that was made for it; so does what came, if too few did."""
        made = [name for name in names if name not in failures]
        enough = len(made) >= request.min_count
        clearing = self._patience.until()
        problems = at_once(
            lambda name: self._machines.clear(name, until=clearing), list(failures) if enough else list(names)
        )
        unclear = next((error for error in problems if error is not None), None)
        if not enough:
            if unclear is None:
                self._records.forget(request.launch_id, until=clearing)
            raise _worst(failures.values())
        places = tuple(name.rpartition("-")[2] for name in made)
        self._records.end(request.launch_id, places, until=clearing)
        why = str(_worst(failures.values()).args[0]) if failures else None
        instances = self._look_at(made, max(until, clearing))
        return LaunchOutcome(instances=tuple(instances), missing=len(failures), why=why)

    def _remembered(self, request: LaunchRequest, places: Sequence[str], until: float) -> LaunchOutcome:
        """A launch that is over: what is left of it, and what has ended since."""
        names = [f"{request.launch_id}-{self.region}-{place}" for place in places]
        found = self._look_at(names, until)
        refuse_other_type(request, found, any_case=True)
        there = {one.instance_id for one in found}
        now = datetime.datetime.now(datetime.timezone.utc)
        ended = [
            deleted_since(request, name, provider=self, zone=None, launched_at=now)
            for name in names
            if name not in there
        ]
        missing = max(0, request.count - len(names))
        why = f"Azure had {len(names)} of the {request.count} asked for" if missing else None
        return LaunchOutcome(instances=(*found, *ended), missing=missing, why=why)

    # --- looking ----------------------------------------------------------------------------------------------

    def describe(self, instance_ids: Sequence[str]) -> list[Instance]:
        return self._look_at(list(dict.fromkeys(instance_ids)), self._patience.until())

    def _look_at(self, names: Sequence[str], until: float) -> list[Instance]:
        found = at_once(lambda name: self._machines.get(name, until=until), names)
        return self._instances([one for one in found if one is not None], until)

    def list_instances(self, tags: Mapping[str, str] | None = None) -> list[Instance]:
        until = self._patience.until()
        return self._instances(self._machines.all(tags, until=until), until)

    def _instances(self, machines: Sequence[Mapping[str, Any]], until: float) -> list[Instance]:
        addresses = self._machines.addresses(machines, until=until)
        return [
            azure_requests.instance_from(
                one,
                region=self.region,
                private_ip=addresses[one["name"]][0],
                public_ip=addresses[one["name"]][1],
            )
            for one in machines
        ]

    def zones(self, instance_type: str) -> list[str]:
        with self._lock:
            at, sizes = self._sizes
            if time.monotonic() - at > _SIZES_KEPT_S:
                wanted = f"location eq '{self.region}'"
                sizes = list(self._arm.pages("resource_skus", until=self._patience.until(), filter=wanted))
                self._sizes = (time.monotonic(), sizes)
        return azure_requests.offered_zones(sizes, instance_type, self.region)

    # --- changing ---------------------------------------------------------------------------------------------

    def stop(self, instance_ids: Sequence[str]) -> None:
        """Deallocates: what is only shut down is paid for like what runs."""
        until = time.monotonic() + self._settle_s
        self._each(instance_ids, lambda name: self._machines.stop(name, settle=until))

    def start(self, instance_ids: Sequence[str]) -> None:
        until = self._patience.until()
        self._each(instance_ids, lambda name: self._machines.start(name, until=until))

    def terminate(self, instance_ids: Sequence[str]) -> None:
        settle = time.monotonic() + self._settle_s
        self._each(instance_ids, lambda name: self._machines.end(name, settle=settle))

    def tag(self, instance_ids: Sequence[str], tags: Mapping[str, str]) -> None:
        azure_requests.check_tags(tags)
        if tags:
            until = self._patience.until()
            self._each(instance_ids, lambda name: self._tag(name, tags, until))

    def _tag(self, name: str, tags: Mapping[str, str], until: float) -> None:
        """Tags are replaced as a whole, under the machine's etag: who was overtaken reads them again."""
        for _ in range(_TAG_TRIES):
            machine = self._machines.get(name, until=until)
            if machine is None:
                raise InstanceNotFoundError(f"{self.region} has no instance {name!r}")
            before = dict(machine.get("tags") or {})
            if tags.items() <= before.items():
                return
            folded = {key.lower() for key in tags}
            kept = {key: value for key, value in before.items() if key.lower() not in folded}
            try:
                self._machines.retag(name, {**kept, **tags}, str(machine.get("etag") or ""), until=until)
            except ConflictError:
                continue
            return
        raise ConflictError(
            f"the tags of {name} keep changing", hint="Run the command again when others are done."
        )

    def _each(self, ids: Sequence[str], change: Callable[[str], None]) -> None:
        """Changes all of them, whatever becomes of one; then tells of the first that failed."""

        def told(name: str) -> TextnlpFastError | None:
            try:
                change(name)
            except TextnlpFastError as error:
                return error
            return None

        for error in at_once(told, list(dict.fromkeys(ids))):
            if error is not None:
                raise error


def _worst(errors: Iterable[TextnlpFastError]) -> TextnlpFastError:
    """The error that says most to whoever asked: one of several machines' that is no mere lack of an answer."""
    found = list(errors)
    vague = (ConflictError, ProviderUnavailableError)
    return next((one for one in found if not isinstance(one, vague)), found[0])
