"""A Ray Serve application that is held under load and let go, in a process of its own; test_ray_serve.py reads it.

Prints a line of JSON for each number of running replicas. Requests last until the file that is named first exists.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import serve

RELEASE, TEMPORARY = Path(sys.argv[1]), sys.argv[2]
NAME = "held"


def held(requests: Any) -> Any:
    """A deployment whose requests last until the file is there."""
    release = str(RELEASE)

    async def answer(self: Any) -> str:
        while not Path(release).exists():  # noqa: ASYNC110, ASYNC240  (another process makes it)
            await asyncio.sleep(0.1)
        return "done"

    return serve.deployment(
        name=NAME,
        max_ongoing_requests=100,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=1,
        ray_actor_options={"num_cpus": 0.1},
        autoscaling_config={
            "min_replicas": 1,
            "max_replicas": 3,
            "upscale_delay_s": 0,
            "downscale_delay_s": 0,
            "look_back_period_s": 1,
            "metrics_interval_s": 0.2,
            "policy": {
                "policy_function": "textnlp_fast.integrations.ray_serve:LLMAutoscalingPolicy",
                "policy_kwargs": requests,
            },
        },
    )(type("Held", (), {"__call__": answer}))


def replicas() -> int:
    deployment = serve.status().applications["default"].deployments[NAME]
    return int(deployment.replica_states.get("RUNNING", 0))


def wait_for(count: int, deadline_s: float) -> None:
    last = None
    while last != count:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{last} replicas, not {count}")
        now = replicas()
        if now != last:
            sys.stdout.write(json.dumps({"replicas": now}) + "\n")
        last = now
        time.sleep(0.1)


def main() -> None:
    deadline_s = time.monotonic() + 120
    ray.init(
        num_cpus=2,
        object_store_memory=80 * 1024 * 1024,
        include_dashboard=False,
        _node_ip_address="127.0.0.2",  # of this machine alone
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=TEMPORARY,
    )
    try:
        serve.start(proxy_location="Disabled")
        application = held(json.loads(sys.argv[3]))
        handle = serve.run(application.bind())
        wait_for(1, deadline_s)
        answers = [handle.remote() for _ in range(6)]
        wait_for(3, deadline_s)
        RELEASE.touch()
        assert [answer.result(timeout_s=30) for answer in answers] == ["done"] * 6
        wait_for(1, deadline_s)
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
