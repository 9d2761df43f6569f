"""A process to be killed: acquires one machine under a key, and says so. Run by `test_on_moto.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from faults.children import say
from textnlp_fast.gpu import GPUResourceManager, GPUType
from textnlp_fast.gpu.resources.requests import MarketChoice


def main(key: str, market: MarketChoice) -> None:
    manager = GPUResourceManager(owner="fleet-a")
    manager.register_provider("aws", "us-east-1", first_pause_s=0.01)
    say("ready")
    sys.stdin.readline()
    (found,) = manager.acquire(
        manager.request(gpu_types=GPUType.NVIDIA_T4, market=market, key=None if key == "none" else key)
    )
    say(found.instance_id)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])  # type: ignore[arg-type]
