"""Settings: one typed object from arguments, the environment and files. `docs/guide/configuration.md` lists them.

Loaded when first asked for: reading settings takes longer than what most commands of the help need.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from textnlp_fast.config.loading import load_settings
    from textnlp_fast.config.settings import Settings, SignatureRule

__all__ = ["Settings", "SignatureRule", "load_settings"]


def __getattr__(name: str) -> object:
    if name == "load_settings":
        from textnlp_fast.config.loading import load_settings  # noqa: PLC0415

        return load_settings
    if name in __all__:
        from textnlp_fast.config import settings  # noqa: PLC0415

        return getattr(settings, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
