"""What runs on a node: the command of the engine, and the scripts that fetch, wait, watch and drain.

Scripts are written once and take what they need from the environment: no text of a description becomes part of one.
"""

from __future__ import annotations

import math
from typing import Final

from textnlp_fast.adapter.description import Deployment
from textnlp_fast.adapter.planning import DeploymentPlan

__all__ = [
    "DRAIN",
    "FETCH",
    "NOTICE_S",
    "drain_environment",
    "engine_words",
    "environment_of",
    "fetch_environment",
    "model_dir",
    "peers_of",
]

#: Seconds until load balancers have heard that a replica goes.
NOTICE_S: Final = 5
#: Of `textnlp-fast node-cache`.
_NODE_CACHE_PORT: Final = 9410
SWAP_EXTENSION: Final = "textnlp_fast.integrations.vllm.SwapWorkerExtension"

FETCH: Final = """\
set -eu
umask 022
mkdir -p "$DEPLOY_MODELS"
# What the node has of this model already, in whatever version, is not fetched again.
set --
for record in "$DEPLOY_MODELS"/*/.textnlp-fast.json; do
  if [ -e "$record" ]; then set -- "$@" --have "${record%/.textnlp-fast.json}"; fi
done
if [ -n "${DEPLOY_REQUIRE_SIGNATURE:-}" ]; then set -- "$@" --require-signature; fi
# Code 7: another command is at work on that folder. When it has ended, there is hardly anything left to do.
while :; do
  code=0
  textnlp-fast pull "$DEPLOY_REFERENCE" "$DEPLOY_MODEL_DIR" --repo "$TEXTNLP_FAST_REPO" "$@" || code=$?
  [ "$code" -eq 7 ] || exit "$code"
  sleep 2
done
"""
"""A pull that was cut off goes on where it stopped; several at once on one folder wait for each other."""

DRAIN: Final = """\
set -eu
# Whoever sends requests hears of it first; then those under way end, or run out of time.
sleep "$DEPLOY_NOTICE_S"
port=$(printf '%04X' "$DEPLOY_PORT")
left=$DEPLOY_DRAIN_S
while [ "$left" -gt 0 ]; do
  busy=no
  for table in /proc/net/tcp /proc/net/tcp6; do
    [ -r "$table" ] || continue
    while read -r _ own _ state _; do
      case $own in *:"$port") [ "$state" = 01 ] && busy=yes ;; esac
    done <"$table"
  done
  [ "$busy" = yes ] || exit 0
  sleep 1
  left=$((left - 1))
done
"""
"""01 is the state of a connection that is open, as /proc/net/tcp writes it."""


def model_dir(plan: DeploymentPlan, root: str) -> str:
    """Where the version lies below a folder of models."""
    return f"{root.rstrip('/')}/{plan.version.name}/{plan.version.version}"


def engine_words(plan: DeploymentPlan, folder: str) -> list[str]:
    """The engine's command, its own arguments and those of the description."""
    deployment = plan.deployment
    engine = deployment.engine
    parallel = plan.hardware.layout
    words = list(engine.command)
    if not words and engine.kind == "vllm":
        words = ["vllm", "serve", "{model_dir}", "--served-model-name", "{served_name}", "--host", "0.0.0.0"]
        words += ["--port", "{port}"]
        for flag, degree in (
            ("--tensor-parallel-size", parallel.tensor),
            ("--pipeline-parallel-size", parallel.pipeline),
            ("--data-parallel-size", parallel.data),
        ):
            words += [flag, str(degree)] if degree > 1 else []
        words += ["--kv-cache-dtype", "fp8"] if engine.kv_cache == "fp8" else []
        words += ["--worker-extension-cls", SWAP_EXTENSION] if deployment.rollout.hot_swap else []
    elif not words:
        words = ["python3", "-m", "sglang.launch_server", "--model-path", "{model_dir}"]
        words += [
            "--served-model-name",
            "{served_name}",
            "--host",
            "0.0.0.0",
            "--port",
            "{port}",
            "--enable-metrics",
        ]
        for flag, degree in (
            ("--tp", parallel.tensor),
            ("--pp-size", parallel.pipeline),
            ("--dp-size", parallel.data),
        ):
            words += [flag, str(degree)] if degree > 1 else []
        words += ["--kv-cache-dtype", "fp8_e5m2"] if engine.kv_cache == "fp8" else []
    known = {
        "{model_dir}": folder,
        "{served_name}": deployment.served_name,
        "{port}": str(engine.port),
        "{gpus}": str(plan.hardware.gpus),
    }
    return [known.get(word, word) for word in (*words, *engine.arguments)]


def environment_of(deployment: Deployment) -> dict[str, str]:
    """The engine's variables, by name."""
    found = dict(sorted(deployment.engine.environment.items()))
    if deployment.rollout.hot_swap and deployment.engine.kind == "vllm":
        found.setdefault("VLLM_SERVER_DEV_MODE", "1")
    return found


def peers_of(deployment: Deployment, node: str) -> dict[str, str]:
    """The node caches to ask; `node` is the machine's address."""
    peers = [f"http://{node}:{_NODE_CACHE_PORT}" if one == "node" else one for one in deployment.cache.peers]
    return {"TEXTNLP_FAST_PEERS": ",".join(peers)} if peers else {}


def fetch_environment(plan: DeploymentPlan, root: str) -> dict[str, str]:
    """What FETCH needs to know, the peers aside."""
    folder = model_dir(plan, root)
    found = {
        **dict(sorted(plan.deployment.cache.environment.items())),
        "TEXTNLP_FAST_REPO": plan.deployment.model.repository,
        "DEPLOY_REFERENCE": str(plan.version),
        "DEPLOY_MODELS": folder.rpartition("/")[0],
        "DEPLOY_MODEL_DIR": folder,
    }
    if plan.deployment.model.require_signature:
        found["DEPLOY_REQUIRE_SIGNATURE"] = "1"
    return found


def drain_environment(deployment: Deployment) -> dict[str, str]:
    """What DRAIN needs to know."""
    return {
        "DEPLOY_PORT": str(deployment.engine.port),
        "DEPLOY_NOTICE_S": str(NOTICE_S),
        "DEPLOY_DRAIN_S": str(math.ceil(deployment.engine.drain_s)),
    }
