"""Conditional writes on every server, through a network that loses answers: nothing is lost, nothing doubled."""

from __future__ import annotations

import json

import pytest

from faults.proxy import FaultProxy
from objectstore.racing import increment, run_together
from servers import Place
from textnlp_fast.errors import (
    ConflictError,
    InvalidInputError,
    ObjectExistsError,
    StorageUnavailableError,
)
from textnlp_fast.objectstore import ObjectStore

# moto has no part in it: what it says of conditions, ministack says too.
pytestmark = pytest.mark.parametrize("place", ["ministack", "radosgw", "azurite", "gcs"], indirect=True)

LOSSES = ["lose_answer", "lose_request", "status", "status_after"]


@pytest.mark.parametrize("kind", LOSSES)
def test_create_survives_a_loss(
    place: Place, store: ObjectStore, direct: ObjectStore, proxy: FaultProxy, kind: str
) -> None:
    fault = proxy.inject(place.write_fault(kind))  # type: ignore[arg-type]
    store.create("m/1.json", b"write id 1")
    assert fault.hits == 1
    assert direct.get("m/1.json") == b"write id 1"


def test_a_lost_answer_is_found_by_reading_back_not_by_writing_again(
    place: Place, store: ObjectStore, proxy: FaultProxy
) -> None:
    proxy.inject(place.write_fault("lose_answer"))
    store.create("m/1.json", b"write id 1")
    assert [method for method, _ in proxy.requests] == [place.put, "GET"]


@pytest.mark.parametrize("kind", LOSSES)
def test_create_after_a_loss_still_sees_the_other_writer(
    place: Place, store: ObjectStore, direct: ObjectStore, proxy: FaultProxy, kind: str
) -> None:
    direct.create("m/1.json", b"theirs")
    proxy.inject(place.write_fault(kind))  # type: ignore[arg-type]
    with pytest.raises(ObjectExistsError) as caught:
        store.create("m/1.json", b"ours")
    assert caught.value.existing == b"theirs"
    assert direct.get("m/1.json") == b"theirs"


@pytest.mark.parametrize("kind", LOSSES)
def test_swap_survives_a_loss(
    place: Place, store: ObjectStore, direct: ObjectStore, proxy: FaultProxy, kind: str
) -> None:
    first = store.compare_and_swap("refs", b"one", None)
    fault = proxy.inject(place.write_fault(kind))  # type: ignore[arg-type]
    second = store.compare_and_swap("refs", b"two", first)
    assert fault.hits == 1
    assert direct.get_versioned("refs") == (b"two", second)


def test_a_swap_overtaken_before_its_answer_came_says_so(
    place: Place, store: ObjectStore, direct: ObjectStore, proxy: FaultProxy
) -> None:
    first = store.compare_and_swap("refs", b"zero", None)
    first = store.compare_and_swap(
        "refs", b"one", first
    )  # which spelling of ETags the server takes is known now

    def overtake() -> None:
        content, version = direct.get_versioned("refs")
        direct.compare_and_swap("refs", content + b", three", version)

    proxy.inject(place.write_fault("lose_answer", meanwhile=overtake))
    with pytest.raises(ConflictError) as caught:
        store.compare_and_swap("refs", b"two", first)
    assert caught.value.may_have_applied
    assert direct.get("refs") == b"two, three"


def test_a_swap_that_lost_for_certain_says_so_too(
    store: ObjectStore, direct: ObjectStore, proxy: FaultProxy
) -> None:
    first = store.compare_and_swap("refs", b"one", None)
    direct.compare_and_swap("refs", b"two", first)
    with pytest.raises(ConflictError) as caught:
        store.compare_and_swap("refs", b"three", first)
    assert not caught.value.may_have_applied


@pytest.mark.parametrize("code", [409, 412])
def test_a_refusal_without_another_writer_is_not_believed(
    place: Place, store: ObjectStore, proxy: FaultProxy, code: int
) -> None:
    proxy.inject(place.write_fault("status", code=code))
    first = store.compare_and_swap("refs", b"one", None)
    proxy.inject(place.write_fault("status", code=code))
    second = store.compare_and_swap("refs", b"two", first)
    assert store.get_versioned("refs") == (b"two", second)


@pytest.mark.parametrize(("after", "complaint"), [(1, "that exist already"), (3, "that have changed")])
def test_a_server_that_ignores_conditions_is_refused(
    place: Place, store: ObjectStore, direct: ObjectStore, proxy: FaultProxy, after: int, complaint: str
) -> None:
    if place.server in {"radosgw", "azurite"}:
        pytest.skip("conditions are signed here: whoever takes them away on the wire is found out")
    proxy.inject(place.write_fault("ignore_conditions", after=after))
    with pytest.raises(InvalidInputError, match=complaint):
        store.check_conditional_writes("probe")
    assert not direct.exists("probe")


def test_create_gives_up_when_no_answer_ever_comes(
    place: Place, store: ObjectStore, direct: ObjectStore, proxy: FaultProxy
) -> None:
    proxy.inject(place.write_fault("lose_request", times=1000))
    with pytest.raises(StorageUnavailableError, match=r"m/1\.json"):
        store.create("m/1.json", b"x")
    assert proxy.count(place.put) == 4  # one try and three more
    assert not direct.exists("m/1.json")


def test_racing_creators_on_a_bad_network(place: Place, store: ObjectStore, proxy: FaultProxy) -> None:
    for offset, kind in enumerate(LOSSES):
        proxy.inject(place.write_fault(kind, after=offset * 2, times=2))  # type: ignore[arg-type]
    winners: list[bytes] = []

    def race(thread: int) -> None:
        data = b"thread %d" % thread
        try:
            store.create("race", data)
        except ObjectExistsError as conflict:
            assert conflict.existing != data
        else:
            winners.append(data)

    run_together(16, race)
    assert winners == [store.get("race")]


def test_no_increment_is_lost_or_doubled_on_a_bad_network(
    place: Place, store: ObjectStore, proxy: FaultProxy
) -> None:
    store.create("counter", b'{"count": 0, "writes": []}')
    faults = [
        proxy.inject(place.write_fault(kind, after=2 * offset))  # type: ignore[arg-type]
        for offset, kind in enumerate(LOSSES * 3)
    ]
    run_together(4, lambda _: [increment(store, "counter") for _ in range(4)])
    state = json.loads(store.get("counter"))
    assert state["count"] == len(set(state["writes"])) == 16
    assert sum(fault.hits for fault in faults) >= len(faults) // 2
