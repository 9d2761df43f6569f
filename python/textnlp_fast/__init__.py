"""Store every version of a model in your own bucket, move only what changed.

>>> import textnlp_fast
>>> textnlp_fast.push("my-model/", "s3://bucket/models", name="my-model", version="1.0.0")  # doctest: +SKIP
>>> textnlp_fast.pull("s3://bucket/models", "out/", name="my-model")  # doctest: +SKIP
"""

from __future__ import annotations

# Not from `typing`, which takes longest of all that the command line loads before it can catch an interrupt.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from textnlp_fast._native import __version__
    from textnlp_fast.loading import load, swap
    from textnlp_fast.storage.journeys import diff, log, pull, push, verify
    from textnlp_fast.tensors.cuda_devices import cuda_available, devices

__all__ = [
    "__version__",
    "cuda_available",
    "devices",
    "diff",
    "load",
    "log",
    "pull",
    "push",
    "swap",
    "verify",
]


def __getattr__(name: str) -> Any:
    # Loaded when first used, so that importing the package (and `--help`) does not wait for the object store.
    if name == "__version__":
        from textnlp_fast import _native  # noqa: PLC0415

        return _native.__version__
    if name in ("load", "swap"):
        from textnlp_fast import loading  # noqa: PLC0415

        return getattr(loading, name)
    if name in ("cuda_available", "devices"):
        from textnlp_fast.tensors import cuda_devices  # noqa: PLC0415

        return getattr(cuda_devices, name)
    if name in __all__:
        from textnlp_fast.storage import journeys  # noqa: PLC0415

        return getattr(journeys, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
