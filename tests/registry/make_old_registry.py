"""Makes tests/vectors/registry: a registry as this version writes it, which every later one must read.

    python tests/registry/make_old_registry.py tests/vectors/registry

Run it only when a new format is added, into a folder of its own.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ["TEXTNLP_FAST_AUDIT"] = "off"
sys.path.insert(0, str(Path(__file__).parents[1]))

from textnlp_fast.storage import Registry, Repository
from textnlp_fast.storage.registry.delivery import Delivery
from textnlp_fast.storage.registry.lifecycle import DEFAULT_LIFECYCLE, Move
from textnlp_fast.storage.registry.rules import Rules
from textnlp_fast.storage.registry.subscriptions import Webhook


def main(root: Path) -> None:
    repository = Repository.open(root, create=True)
    for version in ("1.0.0", "1.1.0", "2.0.0-rc.1", "0.9.0"):
        repository.store.put_object(f"models/org/m/versions/{version}.json", b"{}")
    registry = Registry(repository, actor="alice", delivery=Delivery(tries=1))
    moves = tuple(
        Move(move.source, move.target, "release") if move.target == "production" else move
        for move in DEFAULT_LIFECYCLE.moves
    )
    registry.set_rules(
        Rules(
            lifecycle=replace(DEFAULT_LIFECYCLE, moves=moves),
            roles={"release": ("alice", "ci-*")},
            protected_aliases="release",
            webhooks={"ci": Webhook("ci", "http://127.0.0.1:1/hook", "HOOK_KEY", ("deploy.end",))},
        )
    )
    for number in range(60):
        registry.deploy("org/m", ("1.0.0", "1.1.0")[number % 2], "eu", note=f"turn {number}")
    for number in range(150):
        registry.tag("org/m", "1.0.0", {"turn": str(number)})
    for version in ("1.0.0", "1.1.0"):
        registry.move("org/m", version, "staging")
        registry.move("org/m", version, "production", note="größer")
    registry.set_alias("org/m", "champion", "1.1.0", protect=True)
    registry.set_alias("org/m", "next", "2.0.0-rc.1")
    registry.set_alias("org/m", "old", "1.0.0")
    registry.delete_alias("org/m", "old")
    registry.tag("org/m", None, {"team": "nlp", "x/y": ""})
    registry.tag("org/m", "1.0.0", remove=["turn"])
    registry.pin("org/m", "1.0.0", "a paper cites it")
    registry.pin("org/m", "2.0.0-rc.1")
    registry.deploy("org/m", "2.0.0-rc.1", "us", state="rolling-out")
    registry.set_deployment_state("org/m", "us", "healthy")
    registry.rollback("org/m", "eu")
    registry.deploy("org/m", "1.0.0", "gone")
    registry.end_deployment("org/m", "gone", note="closed")
    registry.retire("org/m", ["0.9.0"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
