"""What publishers say of versions: stages, aliases, tags, pins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from textnlp_fast.service.auth import Principal, Role, require
from textnlp_fast.service.changing import change
from textnlp_fast.service.parameters import Alias, ModelName, VersionSelector
from textnlp_fast.service.reading.rows import version_row
from textnlp_fast.service.schemas import AliasBody, AliasRow, PinBody, StageBody
from textnlp_fast.service.state import Service, service_of
from textnlp_fast.service.version_schemas import VersionRow
from textnlp_fast.storage import Registry
from textnlp_fast.storage.registry.changes import set_tags
from textnlp_fast.storage.registry.state import Change

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/models/{name:path}", tags=["changes"])
At = Annotated[Service, Depends(service_of)]
Publisher = Annotated[Principal, Depends(require(Role.PUBLISHER))]
Tags = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9._/-]{0,63}$")],
        Annotated[str, Field(max_length=500)],
    ],
    Field(max_length=1000),
]


@router.post("/versions/{version}/stage")
async def move_to_stage(
    name: ModelName, version: VersionSelector, body: StageBody, service: At, caller: Publisher
) -> VersionRow:
    """Moves a version to a stage; one that has to make room moves in the same step."""
    exact = (await service.catalog.model(name)).resolve(version)
    _, view = await change(
        service, caller, name, lambda registry: registry.move(name, exact, body.stage, note=body.note)
    )
    return version_row(view, view.facts(exact))


@router.put("/versions/{version}/tags")
async def replace_tags(
    name: ModelName, version: VersionSelector, body: Tags, service: At, caller: Publisher
) -> VersionRow:
    """Makes these a version's tags; those that it has beside them go."""
    exact = (await service.catalog.model(name)).resolve(version)

    def make(registry: Registry) -> tuple[Change, ...]:
        return registry.change(
            "tag",
            name,
            exact,
            {},
            lambda now: set_tags(now, exact, body, remove=now.state_of(exact).tags.keys() - body.keys()),
        )

    _, view = await change(service, caller, name, make)
    return version_row(view, view.facts(exact))


@router.put("/versions/{version}/pin")
async def pin(
    name: ModelName, version: VersionSelector, service: At, caller: Publisher, body: PinBody | None = None
) -> VersionRow:
    """Keeps a version from being collected."""
    exact = (await service.catalog.model(name)).resolve(version)
    reason = body.reason if body is not None else ""
    _, view = await change(service, caller, name, lambda registry: registry.pin(name, exact, reason))
    return version_row(view, view.facts(exact))


@router.delete("/versions/{version}/pin")
async def unpin(name: ModelName, version: VersionSelector, service: At, caller: Publisher) -> VersionRow:
    """Takes the pin off a version."""
    exact = (await service.catalog.model(name)).resolve(version)
    _, view = await change(service, caller, name, lambda registry: registry.unpin(name, exact))
    return version_row(view, view.facts(exact))


@router.put("/aliases/{alias}")
async def set_alias(
    name: ModelName, alias: Alias, body: AliasBody, service: At, caller: Publisher
) -> AliasRow:
    """Makes an alias mean a version. With `expected`, only if it means that now."""
    _, view = await change(
        service,
        caller,
        name,
        lambda registry: registry.set_alias(
            name,
            alias,
            body.version,
            protect=body.protect,
            move_protected=body.move_protected,
            expected=body.expected,
            note=body.note,
        ),
    )
    now = view.references.aliases.get(alias)
    if now is None:  # another writer was quick
        return AliasRow(alias=alias, version=view.resolve(body.version), protected=bool(body.protect))
    return AliasRow(alias=alias, version=now.version, protected=now.protected)


@router.delete("/aliases/{alias}", status_code=204)
async def delete_alias(
    name: ModelName, alias: Alias, service: At, caller: Publisher, move_protected: bool = False
) -> None:
    """Removes an alias; the version stays."""
    await change(
        service,
        caller,
        name,
        lambda registry: registry.delete_alias(name, alias, move_protected=move_protected),
    )
