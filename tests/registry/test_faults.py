"""Registries under kills, lost answers and many writers: nothing told to be done is lost, nothing is done by half."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faults.proxy import Fault, FaultProxy
from reference.references import read_history, read_references, replayed
from registry.conftest import Publish
from servers import S3Server
from textnlp_fast.errors import ConflictError, DeploymentNotFoundError, StorageUnavailableError
from textnlp_fast.objectstore import open_store
from textnlp_fast.storage import Registry, Repository
from textnlp_fast.storage.registry.history import every_change
from textnlp_fast.storage.registry.references import read_references as read

KILLS = int(os.environ.get("TEXTNLP_FAST_KILLS", "15"))


def folder_with_versions(place: str | Path, **options: str) -> Repository:
    """A repository with manifests that nobody reads: registries only look whether they are there."""
    repository = Repository.open(place, create=True, **options)  # type: ignore[arg-type]
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        repository.store.put_object(f"models/m/versions/{version}.json", b"{}")
    return repository


def test_a_writer_killed_at_any_moment_leaves_whole_changes(tmp_path: Path) -> None:
    folder_with_versions(tmp_path)
    script = Path(__file__).with_name("killed_writers.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(KILLS), "7"],
        check=True, timeout=300 + 20 * KILLS, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    told = done.stdout.split()
    history = read_history(tmp_path, "m")
    made = [change["detail"]["value"] for change in history]
    assert len(made) == len(set(made))
    assert set(told) <= set(made)
    # Each writer may have been killed between its write and telling of it: once.
    assert len(made) - len(told) <= KILLS
    for turn in range(KILLS):
        numbers = [int(value.split(".")[1]) for value in made if value.startswith(f"{turn}.")]
        assert numbers == list(range(len(numbers)))
    assert read_references(tmp_path, "m")["versions"] == replayed(history)["versions"]
    Registry(Repository.open(tmp_path)).tag("m", "1.0.0", {"last": "alive"})


def mixed(registry: Registry, writer: int, turns: int) -> list[str]:
    """Some of everything; returns what was done, as action and detail."""
    done: list[str] = []
    for turn in range(turns):
        version = ("1.0.0", "1.1.0", "2.0.0")[(writer + turn) % 3]
        try:
            match (writer + turn) % 5:
                case 0:
                    changes = registry.tag("m", version, {f"w{writer}": str(turn)})
                case 1:
                    changes = registry.set_alias("m", f"a{writer}", version)
                case 2:
                    registry.deploy("m", version, f"t{writer % 4}", note=f"{writer}/{turn}")
                    done.append(f"{writer}/{turn}")
                    continue
                case 3:
                    changes = registry.pin("m", version, f"{writer}/{turn}")
                case _:
                    registry.rollback("m", f"t{writer % 4}", note=f"{writer}/{turn}")
                    done.append(f"{writer}/{turn}")
                    continue
        except (ConflictError, DeploymentNotFoundError):
            continue  # of targets that several writers change at once
        done += [json.dumps(dict(change.detail), sort_keys=True) for change in changes]
    return done


def check_mixed(store: object, done: list[str]) -> None:
    references = read(store, "m")  # type: ignore[arg-type]
    history = list(every_change(store, references))[::-1]  # type: ignore[arg-type]
    assert [change.number for change in history] == list(range(1, references.revision + 1))
    made = [
        change.detail.get("note", "")
        if change.action.startswith("deploy")
        else json.dumps(dict(change.detail), sort_keys=True)
        for change in history
    ]
    assert sorted(made) == sorted(done)


def test_sixteen_registries_do_some_of_everything_on_a_folder(tmp_path: Path) -> None:
    folder_with_versions(tmp_path)

    def work(writer: int) -> list[str]:
        return mixed(Registry(Repository.open(tmp_path), actor=f"w{writer}"), writer, 5)

    with ThreadPoolExecutor(16) as pool:
        done = [each for some in pool.map(work, range(16)) for each in some]
    check_mixed(open_store(tmp_path), done)
    document = read_references(tmp_path, "m")
    made = replayed(read_history(tmp_path, "m"))
    assert made["aliases"] == document["aliases"]
    assert made["versions"] == document["versions"]
    for target, each in document["deployments"].items():
        assert [each["version"], *each["previous"]] == made["serves"][target]


def test_sixteen_registries_lose_nothing_where_answers_are_lost(
    s3_bucket: str, s3_server: S3Server, fault_proxy: FaultProxy
) -> None:
    url = f"s3://{s3_bucket}/r"
    folder_with_versions(url, endpoint_url=s3_server.endpoint_url)
    for after in range(3, 120, 7):
        kind = ("lose_answer", "status_after", "lose_request")[after % 3]
        fault_proxy.inject(Fault(kind, method="PUT", path="refs.json|history", after=after))  # type: ignore[arg-type]

    def work(writer: int) -> list[str]:
        repository = Repository.open(url, endpoint_url=fault_proxy.endpoint_url)
        return mixed(Registry(repository, actor=f"w{writer}"), writer, 3)

    with ThreadPoolExecutor(16) as pool:
        done = [each for some in pool.map(work, range(16)) for each in some]
    check_mixed(open_store(url, endpoint_url=s3_server.endpoint_url), done)


def test_a_store_that_fails_leaves_what_was(
    s3_bucket: str, s3_server: S3Server, fault_proxy: FaultProxy
) -> None:
    url = f"s3://{s3_bucket}/r"
    direct = Registry(folder_with_versions(url, endpoint_url=s3_server.endpoint_url), actor="alice")
    direct.deploy("m", "1.0.0", "eu")
    faulty = Registry(
        Repository(open_store(url, endpoint_url=fault_proxy.endpoint_url, retries=1)), actor="bob"
    )
    fault_proxy.inject(Fault("status", method="PUT", path="refs.json", times=10))
    with pytest.raises(StorageUnavailableError, match="may have been made or not"):
        faulty.deploy("m", "1.1.0", "eu")
    assert direct.deployments("m")["m"]["eu"].version == "1.0.0"
    fault_proxy.heal()
    assert faulty.deploy("m", "1.1.0", "eu").version == "1.1.0"


def test_a_rollback_whose_answer_is_lost_goes_back_once(
    s3_bucket: str, s3_server: S3Server, fault_proxy: FaultProxy
) -> None:
    url = f"s3://{s3_bucket}/r"
    direct = Registry(folder_with_versions(url, endpoint_url=s3_server.endpoint_url), actor="alice")
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        direct.deploy("m", version, "eu")
    faulty = Registry(Repository.open(url, endpoint_url=fault_proxy.endpoint_url), actor="bob")
    fault = Fault(
        "lose_answer",
        method="PUT",
        path="refs.json",
        meanwhile=lambda: direct.tag("m", None, {"a": "b"}) and None,
    )
    fault_proxy.inject(fault)
    assert faulty.rollback("m", "eu").version == "1.1.0"
    assert fault.hits == 1


def test_an_old_versions_repository_without_a_registry_is_none(
    repository: Repository, publish: Publish
) -> None:
    publish("m", "1.0.0")
    registry = Registry(repository)
    assert registry.references("m").revision == 0
    assert registry.deployments() == {}
    assert [
        meta.key for meta in repository.store.list() if "refs" in meta.key or "registry" in meta.key
    ] == []
