"""The application: routes, the door before them, and what happens when it begins and ends."""

from __future__ import annotations

import gc
import pkgutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib import import_module

from fastapi import FastAPI

from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.service import routes
from textnlp_fast.service.config import ServiceConfig
from textnlp_fast.service.dashboard import mount
from textnlp_fast.service.description import described
from textnlp_fast.service.limits import Gate
from textnlp_fast.service.metrics import RequestMetrics
from textnlp_fast.service.problems import install_problem_handlers
from textnlp_fast.service.state import Service
from textnlp_fast.storage import TransferOptions

__all__ = ["create_app"]

Lifespan = Callable[[Service], AbstractAsyncContextManager[None]]


def create_app(
    config: ServiceConfig,
    *,
    store: ObjectStore | None = None,
    options: TransferOptions | None = None,
) -> FastAPI:
    """The service as an ASGI application; `app.state.service` is what its routes work with.

    `store` is the repository's, already open; `options` say how versions are coded and how much memory that may take.
    Raises InvalidInputError for a configuration that makes no sense, and what opening a store does.
    """
    service = Service(config, store=store, options=options)
    files = [
        import_module(f"{routes.__name__}.{each.name}") for each in pkgutil.iter_modules(routes.__path__)
    ]

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(service.close)
            service.metrics.begin()
            for file in files:
                begin: Lifespan | None = getattr(file, "lifespan", None)
                if begin is not None:
                    await stack.enter_async_context(begin(service))
            service.catalog.begin()
            # What lives from here to the end needs no looking through at every collection.
            gc.collect()
            gc.freeze()
            yield
            service.stopping.set()

    app = FastAPI(
        title="textnlp-fast",
        version=_version(),
        description="Models, versions, deployments and the fleet of a textnlp-fast repository.",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    install_problem_handlers(app, config.repo)
    for file in files:
        if hasattr(file, "router"):
            app.include_router(file.router)
    app.openapi = described(app)  # type: ignore[method-assign]
    mount(app)  # last: routes come first
    app.add_middleware(RequestMetrics, metrics=service.metrics)
    app.add_middleware(Gate, config=config)
    return app


def _version() -> str:
    from textnlp_fast import __version__  # noqa: PLC0415 - the front page imports all that is below it

    return __version__
