"""The snapshot: how old it may be, what renews it, and that several replicas and writers see each other."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textnlp_fast.errors import StorageUnavailableError
from textnlp_fast.objectstore import open_store
from textnlp_fast.service.blocking import Blocking
from textnlp_fast.service.caching import ByteCache, SingleFlight
from textnlp_fast.service.reading import Catalog
from textnlp_fast.service.reading.manifests import BoundedVersionManager
from textnlp_fast.service.reading.scan import scan, scan_model
from textnlp_fast.storage import Registry, Repository

NAME = "org/tiny"
Serving = Any


def catalog_of(root: Path, *, fresh_s: float, stale_s: float) -> tuple[Catalog, list[Any]]:
    """A catalog, and the keys that were read since."""
    store = open_store(str(root))
    asked: list[Any] = []
    get = store._backend.get

    def noted(key: str, limit_bytes: int | None) -> Any:
        asked.append(key)
        return get(key, limit_bytes)

    store._backend.get = noted  # type: ignore[method-assign]
    versions = BoundedVersionManager(store, 1 << 20)
    return Catalog(versions, Blocking("t", 2, 60), fresh_s=fresh_s, stale_s=stale_s, listing_share=1), asked


async def settled(catalog: Catalog, wanted: Any) -> None:
    """Waits until the catalog knows."""
    end = asyncio.get_running_loop().time() + 60
    while not wanted(await catalog.current()):
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.02)


async def test_what_did_not_change_is_not_read_again(own: Repository, tmp_path: Path) -> None:
    catalog, asked = catalog_of(tmp_path / "repository", fresh_s=0, stale_s=0)
    try:
        first = await catalog.current()
        assert sum("/versions/" in key for key in asked) == 4
        asked.clear()
        again = await catalog.current()
        assert again is not first
        assert all(again.models[name] is first.models[name] for name in first.models)
        assert set(asked) <= {"registry.json"}
        Registry(own, actor="bob").set_alias(NAME, "new", "1.0.0")
        asked.clear()
        third = await catalog.current()
        assert third.models["other"] is first.models["other"]
        assert third.models[NAME].references.aliases["new"].version == "1.0.0"
        assert [key for key in asked if key != "registry.json"] == [f"models/{NAME}/refs.json"]
        assert third.stamp != again.stamp == first.stamp
    finally:
        catalog.close()


async def test_a_young_snapshot_asks_nothing_and_an_older_one_is_renewed_beside_the_answer(
    own: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, asked = catalog_of(tmp_path / "repository", fresh_s=3600, stale_s=7200)
    try:
        first = await catalog.current()
        asked.clear()
        assert all([await catalog.current() is first for _ in range(50)])
        assert asked == []
        Registry(own, actor="bob").set_alias(NAME, "new", "1.0.0")
        object.__setattr__(first, "made_s", first.made_s - 3700)
        assert await catalog.current() is first  # at once...
        await settled(catalog, lambda now: "new" in now.models[NAME].references.aliases)  # ...and then
        second = await catalog.current()
        object.__setattr__(second, "made_s", second.made_s - 7300)
        Registry(own, actor="bob").set_alias(NAME, "newer", "1.0.0")
        assert "newer" in (await catalog.current()).models[NAME].references.aliases
    finally:
        catalog.close()


async def test_two_replicas_see_each_other_s_changes(own: Repository, serving: Serving) -> None:
    api = f"/api/v1/models/{NAME}"
    async with (
        serving(own.url, fresh_s=0.05, stale_s=0.1) as one,
        serving(own.url, fresh_s=0.05, stale_s=0.1) as two,
    ):
        for number in range(3):
            answer = await one.put(f"{api}/aliases/a{number}", json={"version": "1.0.0"})
            assert answer.status_code == 200
            end = asyncio.get_running_loop().time() + 60
            while True:
                models = (await two.get("/api/v1/models")).json()["items"]
                if f"a{number}" in next(each for each in models if each["name"] == NAME)["aliases"]:
                    break
                assert asyncio.get_running_loop().time() < end
                await asyncio.sleep(0.02)
        # The same state has the same ETag, whoever is asked.
        paths = ("/api/v1/models", f"{api}/versions", f"{api}/graph", f"{api}/changes", "/api/v1/storage")
        await asyncio.sleep(0.2)
        for path in paths:
            assert (await one.get(path)).headers["ETag"] == (await two.get(path)).headers["ETag"], path


async def test_versions_that_come_and_go_are_noticed(
    own: Repository, serving: Serving, tmp_path: Path
) -> None:
    from textnlp_fast.storage import CollectionOptions  # noqa: PLC0415

    async with serving(own.url, fresh_s=0, stale_s=0, listing_share=1) as client:
        own.push(tmp_path / "weights", "new/model", "1.0.0")
        names = [row["name"] for row in (await client.get("/api/v1/models")).json()["items"]]
        assert names == ["new/model", NAME, "other"]
        assert (await client.get("/api/v1/models/new/model/versions/1.0.0")).status_code == 200
        own.collect_garbage(CollectionOptions(versions=((NAME, "2.0.0-rc.1"),), delete=True, grace_s=0))
        left = own.versions(NAME)
        assert "2.0.0-rc.1" not in left
        rows = (await client.get(f"/api/v1/models/{NAME}/versions")).json()["items"]
        assert [row["version"] for row in rows] == left[::-1]
    shutil.rmtree(tmp_path / "repository" / "models" / "new")


async def test_one_that_was_just_pushed_is_found_before_the_list_has_it(
    own: Repository, serving: Serving, tmp_path: Path
) -> None:
    async with serving(own.url, fresh_s=1, stale_s=3600) as client:
        assert (await client.get("/api/v1/models/new/versions")).status_code == 404
        own.push(tmp_path / "weights", "new", "1.0.0")
        await asyncio.sleep(1.1)
        assert (await client.get("/api/v1/models/new/versions")).status_code == 200


async def test_while_the_store_is_away_what_is_known_is_told(own: Repository, tmp_path: Path) -> None:
    catalog, _ = catalog_of(tmp_path / "repository", fresh_s=0, stale_s=0)
    try:
        first = await catalog.current()

        def away(*_arguments: Any) -> Any:
            raise StorageUnavailableError("away")

        catalog._versions.store._backend.list = away  # type: ignore[method-assign]
        for _ in range(3):
            assert await catalog.current() is first
        object.__setattr__(first, "made_s", first.made_s - 1000)
        with pytest.raises(StorageUnavailableError):
            await catalog.current()
    finally:
        catalog.close()


async def test_a_listing_that_began_before_a_change_does_not_undo_it(
    own: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading  # noqa: PLC0415

    from textnlp_fast.service.reading import catalog as module  # noqa: PLC0415

    catalog, _ = catalog_of(tmp_path / "repository", fresh_s=0, stale_s=3600)
    listed, go = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        found = scan(*arguments)
        listed.set()
        assert go.wait(60)
        return found

    try:
        await catalog.current()
        monkeypatch.setattr(module, "scan", slow)
        await catalog.current()  # begins a listing beside it
        assert await asyncio.to_thread(listed.wait, 60)
        Registry(own, actor="bob").set_alias(NAME, "mine", "1.0.0")
        await catalog.changed(NAME)
        assert "mine" in catalog.snapshot.models[NAME].references.aliases  # type: ignore[union-attr]
        go.set()
        end = asyncio.get_running_loop().time() + 60
        while catalog._flight.is_running("scan"):
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.01)
        assert "mine" in catalog.snapshot.models[NAME].references.aliases  # type: ignore[union-attr]
    finally:
        go.set()
        catalog.close()


def test_one_model_read_by_itself_is_as_in_the_whole(own: Repository) -> None:
    versions = BoundedVersionManager(own.store, 1 << 20)
    whole = scan(versions, None)
    for name, view in whole.models.items():
        found = scan_model(versions, name, None)
        assert found is not None and found.stamp == view.stamp
        assert (found.versions, found.references) == (view.versions, view.references)
    assert scan_model(versions, "nobody", None) is None


async def test_single_flight_outlives_who_asked_first() -> None:
    flights, go, made = SingleFlight(), asyncio.Event(), []

    async def work() -> int:
        made.append(1)
        await go.wait()
        return len(made)

    first = asyncio.ensure_future(flights.run("a", work))
    second = asyncio.ensure_future(flights.run("a", work))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    go.set()
    assert await second == 1
    assert await flights.run("a", work) == 2  # over is over

    async def broken() -> int:
        raise StorageUnavailableError("x")

    results = await asyncio.gather(*(flights.run("b", broken) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in results] == [StorageUnavailableError] * 3
    assert not flights.is_running("b")


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from("pgd"), st.integers(0, 9), st.integers(0, 120)), max_size=80))
def test_a_byte_cache_is_what_a_plain_one_would_be(steps: list[tuple[str, int, int]]) -> None:
    cache: ByteCache[int] = ByteCache(200)
    plain: dict[int, tuple[int, int]] = {}  # in the order of use
    for number, (what, key, size) in enumerate(steps):
        if what == "p":
            cache.put(key, number, size)
            plain.pop(key, None)
            if size <= 50:
                plain[key] = (number, size)
                while sum(each for _, each in plain.values()) > 200:
                    del plain[next(iter(plain))]
        elif what == "g":
            found = cache.get(key)
            assert found == (plain[key][0] if key in plain else None)
            if key in plain:
                plain[key] = plain.pop(key)
        else:
            cache.drop(key)
            plain.pop(key, None)
        assert cache.size_bytes == sum(each for _, each in plain.values()) <= 200
        assert len(cache) == len(plain)
