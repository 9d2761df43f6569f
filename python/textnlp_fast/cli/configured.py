"""What settings say to verbs. Every verb asks here, so that none obeys another set of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from textnlp_fast.errors import InvalidInputError

if TYPE_CHECKING:
    from textnlp_fast.config import Settings

__all__ = ["OTHERS", "current_settings", "reach", "repository_url", "setting"]

OTHERS: Final = frozenset(
    {
        "AWS_REGION",
        "AZURE_RESOURCE_GROUP",
        "DEFAULT_GPU_TYPE",
        "ENABLE_COMPRESSION",
        "ENABLE_SPOT_INSTANCES",
        "GCP_PROJECT_ID",
        "GPU_AUTOSCALING",
        "MAX_SHARD_SIZE_GB",
        "MODEL_STORAGE_BUCKET",
    }
)
"""Variables of settings without the prefix. Kept here, too: where they are declared takes a while to load."""
_PREFIX: Final = "TEXTNLP_FAST_"
# `--repo` reads the first itself; the second is the core's.
_NO_REASON: Final = frozenset({"TEXTNLP_FAST_REPO", "TEXTNLP_FAST_ISA"})


def current_settings() -> Settings | None:
    """The settings; None where nobody set any: loading them takes longer than most verbs do."""
    if not any(
        value and (name in OTHERS or (name.startswith(_PREFIX) and name not in _NO_REASON))
        for name, value in os.environ.items()
    ):
        return None
    from textnlp_fast.config import load_settings  # noqa: PLC0415

    return load_settings()


def setting(name: str, default: Any, shown: Callable[[Any], Any] = lambda value: value) -> Callable[[], Any]:
    """An option's default: what the setting says as the option has it (`shown`), or `default` if nobody set any."""

    def value() -> Any:
        settings = current_settings()
        return default if settings is None else shown(getattr(settings, name))

    return value


def reach() -> dict[str, Any]:
    """How buckets are reached, as `open_store` and `Repository.open` take it."""
    settings = current_settings()
    if settings is None:
        return {}
    return {"region": settings.aws_region, "endpoint_url": settings.endpoint_url}


def repository_url(repo: str | None) -> str:
    """What `--repo` or the settings name. Raises InvalidInputError if nobody names a repository."""
    settings = None if repo else current_settings()
    if settings is not None:
        repo = settings.repository_url
    if not repo:
        raise InvalidInputError(
            "no repository was given", hint="Pass --repo URL, or set TEXTNLP_FAST_REPO once for all commands."
        )
    return repo
