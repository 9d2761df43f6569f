"""Which providers there are, by name. A provider's module, and with it a cloud's SDK, is imported when it is made."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.providers.contract import Provider

__all__ = ["ENTRY_POINTS", "Factory", "create_provider", "provider_names", "provider_options"]

Factory = Callable[..., Provider]
"""Called with the region, and options by keyword."""

ENTRY_POINTS: Final = "textnlp_fast.gpu_providers"
"""The group in which other packages name their factories."""

_BUILT_IN: Final = {
    "aws": "textnlp_fast.gpu.providers.aws:AwsProvider",
    "azure": "textnlp_fast.gpu.providers.azure:AzureProvider",
    "gcp": "textnlp_fast.gpu.providers.gcp:GcpProvider",
    "local": "textnlp_fast.gpu.providers.local:LocalProvider",
    "skypilot": "textnlp_fast.gpu.providers.skypilot:SkyPilotProvider",
}


def provider_names() -> list[str]:
    """All names that `create_provider` knows, in order."""
    return sorted({*_BUILT_IN, *(one.name for one in entry_points(group=ENTRY_POINTS))})


def create_provider(name: str, region: str, **options: Any) -> Provider:
    """The provider `name` in `region`; nothing is asked of its cloud yet.

    Raises InvalidInputError for a name that nobody gives or options that it does not take, UnknownRegionError for a
    region that it does not have, MissingPackageError where its SDK is not installed.
    """
    if not isinstance(name, str) or not isinstance(region, str):
        raise InvalidInputError(f"a provider and its region are named by texts, not {name!r} and {region!r}")
    factory = _factory(name)
    try:
        provider = factory(region, **options)
    except TypeError as error:
        raise InvalidInputError(f"provider {name!r} cannot be made: {error}") from error
    if provider.name != name:
        raise InvalidInputError(f"what was registered as {name!r} calls itself {provider.name!r}")
    return provider


def provider_options(name: str) -> dict[str, str]:
    """The options that a provider takes, each with the type that its class writes down for it.

    Raises InvalidInputError for a name that nobody gives.
    """
    parameters = inspect.signature(_factory(name)).parameters.values()
    return {
        one.name: one.annotation
        if isinstance(one.annotation, str)
        else getattr(one.annotation, "__name__", "")
        for one in parameters
        if one.kind is one.KEYWORD_ONLY
    }


def _factory(name: str) -> Factory:
    # What is built in wins: no package that happens to be installed takes the place of `aws`.
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        return cast("Factory", getattr(import_module(module), attribute))
    found: EntryPoint | None = next(iter(entry_points(group=ENTRY_POINTS, name=name)), None)
    if found is None:
        names = provider_names()
        near = difflib.get_close_matches(name, names, 1, 0.5)
        raise InvalidInputError(
            f"there is no provider {name!r}",
            hint=f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(names)}.",
        )
    return cast("Factory", found.load())
