"""What is said where the packages of the service are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from textnlp_fast.errors import MissingPackageError

__all__ = ["needing_service_packages"]


@contextmanager
def needing_service_packages() -> Iterator[None]:
    """Turns a missing package of others into MissingPackageError, which names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("textnlp_fast"):
            raise
        raise MissingPackageError(
            f"the service needs {error.name}", hint="Run: pip install 'textnlp-fast[service]'"
        ) from error
