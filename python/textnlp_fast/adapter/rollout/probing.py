"""Whether an address on this machine answers with 2xx."""

from __future__ import annotations

import asyncio
from typing import Final

from textnlp_fast.errors import ProviderUnavailableError
from textnlp_fast.gpu.health.http import request

__all__ = ["answers_well"]

_TIMEOUT_S: Final = 5.0


def answers_well(url: str) -> bool:
    """Whether a GET is answered with 2xx within five seconds."""
    try:
        answer = asyncio.run(request("GET", url, timeout_s=_TIMEOUT_S, limit_bytes=1 << 20))
    except ProviderUnavailableError:
        return False
    return 200 <= answer.status < 300
