"""`textnlp-fast serve`: repository, registry and fleet over HTTP. Needs the extra ``service``.

>>> from textnlp_fast.service import ServiceConfig, create_app
>>> app = create_app(ServiceConfig(repo="models"))          # an ASGI application, for any server
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from textnlp_fast.service.app import create_app
    from textnlp_fast.service.config import ServiceConfig

__all__ = ["ServiceConfig", "create_app"]


def __getattr__(name: str) -> object:
    if name == "ServiceConfig":
        from textnlp_fast.service.config import ServiceConfig  # noqa: PLC0415

        return ServiceConfig
    if name == "create_app":
        from textnlp_fast.service.needs import needing_service_packages  # noqa: PLC0415

        with needing_service_packages():
            from textnlp_fast.service.app import create_app  # noqa: PLC0415
        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
