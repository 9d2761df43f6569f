"""What settings say of providers."""

from __future__ import annotations

from typing import Any

from textnlp_fast.config import Settings

__all__ = ["options_of", "region_of"]


def region_of(provider: str, settings: Settings) -> str | None:
    """Where a provider rents if nobody says so; None: nowhere."""
    return {"aws": settings.aws_region, "local": "local"}.get(provider)


def options_of(provider: str, settings: Settings) -> dict[str, Any]:
    """Of the provider's options those that somebody has set."""
    its: dict[str, dict[str, Any]] = {
        "gcp": {"project": settings.gcp_project_id},
        "azure": {
            "resource_group": settings.azure_resource_group,
            "subnet": settings.azure_subnet,
            "ssh_public_key": settings.azure_ssh_public_key_file,
        },
    }
    return {option: value for option, value in its.get(provider, {}).items() if value}
