"""The log on every kind of server: writers at once, answers that are lost, and a log that verifies."""

from __future__ import annotations

from typing import Any

import pytest

from servers import Place
from storage.audit.test_recording import assert_chained, run_together
from textnlp_fast.storage import Repository
from textnlp_fast.storage.audit import AuditPolicy, log_of, record, verify_log

POLICY = AuditPolicy(actor="tester")


@pytest.fixture(autouse=True)
def no_races_on_moto(place: Place) -> None:
    if place.server == "moto":
        pytest.skip("moto looks at the condition and writes in two steps: of two racing writers both may win")


def test_writers_at_once_make_one_chain(place: Place) -> None:
    store = place.open("r")
    Repository(store)._versions.info(create=True)

    def write(writer: int) -> None:
        own = place.open("r")
        for number in range(2):
            record(own, action="test", detail={"writer": writer, "number": number}, policy=POLICY)

    run_together(8, write)
    assert_chained(store, 16)
    assert verify_log(store, log_of(store, POLICY)).ok


@pytest.mark.parametrize("kind", ["lose_answer", "status_after"])
def test_a_lost_answer_is_one_record(place: Place, kind: Any) -> None:
    with place.through() as (proxy, endpoint):
        store = place.open("r", endpoint_url=endpoint, retries=3, timeout_s=20)
        Repository(store)._versions.info(create=True)
        record(store, action="one", policy=POLICY)
        fault = proxy.inject(place.write_fault(kind))
        record(store, action="two", policy=POLICY)
        assert fault.hits == 1
        assert [one["action"] for one in assert_chained(store, 2)] == ["audit.begin", "one", "two"]
