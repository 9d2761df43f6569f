"""A repository to look at: a small model through six versions, an adapter's branch, stages, aliases, deployments.

`make serve` runs it once and starts the service on what it made, in `build/demo/`; models to push from the dashboard
are in `build/demo-models/`. A repository that is there already stays as it is: what was changed in the dashboard is
still there the next time.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console

from textnlp_fast.storage import Registry, Repository
from textnlp_fast.storage.registry.lineage import Lineage
from textnlp_fast.storage.registry.publishing import publish_model

SAMPLES = Path(__file__).resolve().parent / "models" / "tiny"
NAME = "demo/tiny-llama"
TUNED = "demo/tiny-llama-chat"

console = Console(highlight=False)


def fill(repository: Repository) -> None:
    """Publishes the versions, and says of them what a team would."""
    trainer, release = Registry(repository, actor="trainer"), Registry(repository, actor="release-bot")
    publish_model(
        trainer, SAMPLES / "v1", NAME, "1.0.0", message="the end of pre-training", tags={"team": "nlp"}
    )
    publish_model(
        trainer,
        SAMPLES / "v2",
        NAME,
        "1.1.0",
        message="100 policy-gradient steps later",
        tags={"team": "nlp"},
    )
    with tempfile.TemporaryDirectory() as scratch:
        for number, version in enumerate(("1.2.0", "1.3.0", "2.0.0-rc.1")):
            source = step(SAMPLES / "v2", Path(scratch) / version, number + 1, share=0.02 * (number + 1))
            publish_model(
                trainer, source, NAME, version, message=f"{100 * (number + 2)} steps", tags={"team": "nlp"}
            )
        tuned = step(SAMPLES / "v2", Path(scratch) / "chat", 9, share=0.3, only="mlp")
        publish_model(
            trainer,
            tuned,
            TUNED,
            "0.1.0",
            parent=f"{NAME}@1.1.0",
            message="tuned to chat: the MLPs alone",
            lineage=Lineage(base_model=f"{NAME}@1.1.0", dataset_digest="sha256:" + "5f" * 32),
        )
    for version in ("1.1.0", "1.2.0", "1.3.0"):
        release.move(NAME, version, "staging", note="passed the evals")
    release.move(NAME, "1.1.0", "production")
    release.move(NAME, "1.2.0", "production", note="two points better on the evals")
    release.set_alias(NAME, "champion", "1.2.0", protect=True)
    release.set_alias(NAME, "canary", "1.3.0")
    release.pin(NAME, "1.0.0", "what the paper measured")
    release.deploy(NAME, "1.1.0", "eu/serving", state="healthy")
    release.deploy(NAME, "1.2.0", "eu/serving", state="healthy", note="after a day of canary")
    release.deploy(NAME, "1.2.0", "us/serving", state="healthy")
    release.deploy(NAME, "1.3.0", "eu/canary", state="rolling-out", note="10 % of the traffic")
    release.deploy(TUNED, "0.1.0", "lab", state="failed", note="out of memory")
    release.deploy(NAME, "1.3.0", "us/serving", state="failed", note="slower than 1.2.0")
    release.rollback(NAME, "us/serving", note="slower")


def step(source: Path, target: Path, seed: int, *, share: float, only: str = "") -> Path:
    """A model whose weights (of tensors with `only` in their name) moved by one ULP, here and there."""
    target.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for path in sorted(source.iterdir()):
        data = bytearray(path.read_bytes())
        if path.suffix == ".safetensors":
            length = int.from_bytes(data[:8], "little")
            for name, tensor in json.loads(data[8 : 8 + length]).items():
                if name == "__metadata__" or only not in name or tensor["dtype"] != "BF16":
                    continue
                begin, end = (8 + length + each for each in tensor["data_offsets"])
                words = np.frombuffer(data, np.uint16, (end - begin) // 2, begin)
                words += (random.random(len(words)) < share).astype(np.uint16)
        (target / path.name).write_bytes(data)
    (target / "README.md").write_text(
        f"# Step {seed}\n\n{100 * share:g} % of the weights moved since 1.1.0.\n"
    )
    return target


def main() -> int:
    place = Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo")
    if (place / "repository.json").exists():
        console.print(f"[bold]{place}/[/] is there already")
        return 0
    if place.exists() and any(place.iterdir()):
        sys.exit(f"{place} is there and is no repository: name another folder")
    # Made beside it and renamed, so that half a demo is never taken for one.
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        fill(Repository.open(Path(scratch) / "demo", create=True))
        shutil.copytree(SAMPLES, place.with_name(f"{place.name}-models"), dirs_exist_ok=True)
        (Path(scratch) / "demo").replace(place)
    console.print(f"The demo's repository is in [bold]{place}/[/]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
