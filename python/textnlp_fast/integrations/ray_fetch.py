"""Ray Serve's LLM applications: the version is fetched on the node before the engine starts.

    callback_config:
      callback_class: textnlp_fast.integrations.ray_fetch.FetchVersion
      callback_kwargs: {repository: s3://bucket/models, reference: llama@1.0.0, destination: /models/llama/1.0.0}

`ray.serve.llm` calls it in each replica, on the node where that runs, before it looks for the model. Replicas of one
node share the folder: one fetches, the others wait for it.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textnlp_fast.errors import ConflictError, InvalidInputError, MissingPackageError

if TYPE_CHECKING:
    from textnlp_fast.storage import PullReport

try:
    from ray.llm._internal.common.callbacks.base import CallbackBase
except ImportError as error:
    raise MissingPackageError(
        f"Ray's LLM applications need {error.name or 'ray'}",
        hint="Install them: pip install 'ray[llm]'",
    ) from error

__all__ = ["FetchVersion", "fetch_version"]

_WAIT_S = 2.0
#: What waits longer for another's pull has lost it: that of a large version over a slow line is shorter.
_PATIENCE_S = 6 * 3600.0


def fetch_version(
    repository: str, reference: str, destination: str, *, require_signature: bool = False
) -> PullReport:
    """Makes `destination` the version's folder, from what the folders beside it have and the repository.

    Raises what a pull does, and ConflictError if another pull of that folder does not end.
    """
    from textnlp_fast.storage import Repository  # noqa: PLC0415 - a replica that fails to import says why
    from textnlp_fast.storage.names import parse_reference  # noqa: PLC0415
    from textnlp_fast.storage.signing import SignaturePolicy  # noqa: PLC0415

    parsed = parse_reference(reference)
    final = Path(destination)
    have = [one.parent for one in sorted(final.parent.glob("*/.textnlp-fast.json"))]
    policy = SignaturePolicy.current() if require_signature else None
    if policy is not None and not policy.needs_of(parsed.name):
        raise InvalidInputError(
            f"a signature of {parsed.name!r} is required, and the settings of this node do not say whose",
            hint="Set TEXTNLP_FAST_SIGNATURE_POLICY on the cluster's nodes (docs/guide/security.md).",
        )
    opened = Repository.open(repository)
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return opened.pull(parsed.name, parsed.version, final, have=have, signatures=policy)
        except ConflictError:
            if time.monotonic() > until:
                raise
            time.sleep(_WAIT_S)


class FetchVersion(CallbackBase):  # type: ignore[misc, unused-ignore]  # Ray has no types here
    """Takes `repository`, `reference`, `destination` and `require_signature` as keyword arguments."""

    async def on_before_node_init(self) -> None:
        """Fetches; the replica fails with the pull's error."""
        settings: dict[str, Any] = dict(self.kwargs)
        await asyncio.to_thread(
            fetch_version,
            settings["repository"],
            settings["reference"],
            settings["destination"],
            require_signature=bool(settings.get("require_signature")),
        )
