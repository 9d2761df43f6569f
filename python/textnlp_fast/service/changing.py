"""Changes of the registry that a request asks for: made in the caller's name, and seen by whoever asks next."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from textnlp_fast.errors import ModelNotFoundError
from textnlp_fast.service.auth import Principal
from textnlp_fast.service.reading import ModelView
from textnlp_fast.service.state import Service
from textnlp_fast.storage import Registry

__all__ = ["change"]

Result = TypeVar("Result")


async def change(
    service: Service, caller: Principal, name: str, make: Callable[[Registry], Result]
) -> tuple[Result, ModelView]:
    """What `make` returns of the registry, and the model as it is afterwards.

    Raises what `make` raises. A change that takes longer than the service waits goes on, and may be made or not.
    """

    def made() -> Result:
        return make(service.registry_for(caller))

    result = await service.blocking.run(made, timeout_s=service.config.write_timeout_s)
    view = await service.catalog.changed(name)
    if view is None:
        raise ModelNotFoundError(f"{name} was removed while it was changed")
    return result, view
