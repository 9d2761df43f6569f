"""Two claims of the recommender, beside the peers that know better or do the same.

    python benches/recommend.py sizing                 GPU counts beside AIConfigurator's, of committed answers
    python benches/recommend.py sizing --peer PYTHON   asked anew (half an hour), and the answers replaced
    python benches/recommend.py cheapest [--peer PYTHON]   500 requests beside SkyPilot's optimizer

PYTHON is one that has the peer: `pip install aiconfigurator` or `pip install skypilot` into an environment of its own.
The cells of `sizing` were chosen before anything was fitted; those marked held were looked at only after.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import random
import subprocess
import tempfile
from pathlib import Path

from textnlp_fast.errors import NoPlanError
from textnlp_fast.gpu.catalog import Catalog
from textnlp_fast.gpu.recommender import Accelerators, Workload, cheapest, read_model
from textnlp_fast.gpu.recommender.layout import Layout
from textnlp_fast.gpu.recommender.plans import layouts_for, replicas_for
from textnlp_fast.gpu.recommender.serving import Point, best_point
from textnlp_fast.gpu.types import GPUType, InstanceType, Market, Offer

HERE = Path(__file__).parent
SIZING, CHEAPEST = HERE / "recommend_sizing.json", HERE / "recommend_cheapest.json"
CONFIGS = HERE.parent / "tests" / "gpu" / "recommender" / "configs"
# Its systems, the same GPUs here, and the memory that both reckon with.
SYSTEMS = {
    "h100_sxm": (GPUType.NVIDIA_H100, 80.0),
    "h200_sxm": (GPUType.NVIDIA_H200, 141.0),
    "a100_sxm": (GPUType.NVIDIA_A100_80GB, 80.0),
    "b200_sxm": (GPUType.NVIDIA_B200, 180.0),
    "l40s": (GPUType.NVIDIA_L40S, 44.7),
}
NEAR = 0.15
REQUESTS, SEED = 500, 20261129


def sized(cell: dict, catalog: Catalog) -> tuple[int, Layout, Point] | None:
    """The fewest GPUs that serve a cell, in machines of eight, and how; None where nothing does."""
    model = read_model(CONFIGS / f"{cell['model'].split('/')[1]}.json")
    workload = Workload(
        shape=model.shape,
        requests_per_s=cell["rps"],
        prompt=cell["prompt"],
        output=cell["output"],
        ttft_s=cell["ttft_s"],
        tpot_s=cell["tpot_s"],
        weights=model.weights,
        kv_cache=cell["kv_cache"],
    )
    gpu, memory_gib = SYSTEMS[cell["system"]]
    best = None
    for layout in layouts_for(model.shape, 8):
        point = best_point(
            model.shape,
            catalog.spec(gpu),
            workload.traffic,
            weights=workload.format,
            kv_bytes=workload.kv_bytes,
            layout=layout,
            gpu_memory_gib=memory_gib,
        )
        if isinstance(point, str):
            continue
        gpus = replicas_for(workload.capacity_per_s, point.requests_per_s) * layout.gpus
        if best is None or gpus < best[0]:
            best = gpus, layout, point
    return best


def compared(answers: list[dict], catalog: Catalog) -> list[dict]:
    """Each answer with ours beside it: gpus, ratio (None where one of the two finds nothing)."""
    rows = []
    for one in answers:
        ours = sized(one["cell"], catalog)
        both = ours is not None and one["gpus"] is not None
        rows.append(
            {**one, "ours": ours[0] if ours else None, "ratio": ours[0] / one["gpus"] if both else None}
        )
    return rows


def summary(rows: list[dict], held: bool) -> tuple[int, int, float]:
    """Of the cells with that mark: how many both size, how many are near, the median of how far off."""
    ratios = [row["ratio"] for row in rows if row["held"] is held and row["ratio"] is not None]
    off = sorted(abs(math.log(ratio)) for ratio in ratios)
    return len(ratios), sum(abs(ratio - 1) <= NEAR for ratio in ratios), math.exp(off[len(off) // 2]) - 1


def sizing(peer: str | None) -> None:
    answers = json.loads(SIZING.read_text())
    if peer is not None:
        asked = [{key: value for key, value in one["cell"].items() if key != "kv_cache"} for one in answers]
        for cell in asked:
            if cell["model"].startswith("mistralai/"):  # it ships no description of this one under its name
                folder = Path(tempfile.mkdtemp())
                (folder / "config.json").write_text((CONFIGS / "Mixtral-8x7B-v0.1.json").read_text())
                cell["path"] = str(folder)
        lines = _ask(peer, "aiconfigurator_cells.py", asked)
        for one, line in zip(answers, lines, strict=True):
            one.update(gpus=line["gpus"], best=_best(line), version=line["version"])
        SIZING.write_text(json.dumps(answers, indent=1) + "\n")
    rows = compared(answers, Catalog.load())
    for row in rows:
        cell = row["cell"]
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        far = "" if row["ratio"] is None or abs(row["ratio"] - 1) <= NEAR else "far"
        print(
            f"{'held' if row['held'] else 'fit':4} {cell['model'].split('/')[1]:26} {cell['system']:8} "
            f"{cell['prompt']:5}+{cell['output']:<4} {cell['rps']:4}/s "
            f"{cell['ttft_s']:g} s {cell['tpot_s'] * 1e3:3.0f} ms  "
            f"theirs {row['gpus'] or '-':>5}  ours {row['ours'] or '-':>5}  {ratio:5} {far}"
        )
    for held in (False, True):
        count, near, median = summary(rows, held)
        print(f"{'held out' if held else 'fitted'}: {near} of {count} within 15 %, median {median:.1%} off")


def _best(line: dict) -> dict | None:
    return min(line.get("layouts") or [], key=lambda one: one["gpus"], default=None)


# --- the cheapest machine ----------------------------------------------------------------------------------


def offers_of(catalog: Catalog) -> list[Offer]:
    """Whole GPUs of the clouds that SkyPilot prices by machine; it prices Google's GPUs and hosts apart."""
    return [one for one in catalog.offers(providers=["aws", "azure"]) if one.instance_type.gpu_count >= 1]


def sky_name(gpu: GPUType) -> str:
    return gpu.value.removeprefix("nvidia-").upper()


def sky_rows(offers: list[Offer]) -> dict[str, list[dict]]:
    """The same offers as rows of SkyPilot's catalogue."""
    rows: dict[str, dict] = {"aws": {}, "azure": {}}
    for one in offers:
        its = one.instance_type
        zone = (one.zone or f"{one.region}a") if its.provider == "aws" else ""
        row = rows[its.provider].setdefault((its.name, one.region, zone), {})
        row |= {
            "InstanceType": its.name,
            "AcceleratorName": sky_name(its.gpu_type),
            "AcceleratorCount": its.gpu_count,
            "vCPUs": its.vcpus,
            "MemoryGiB": its.memory_gib,
            "Region": one.region,
        }
        row |= {"AvailabilityZone": zone} if zone else {}
        row["SpotPrice" if one.market is Market.SPOT else "Price"] = one.usd_per_hour
    return {cloud: list(its.values()) for cloud, its in rows.items()}


def random_requests(offers: list[Offer], count: int) -> list[dict]:
    """Any of one to three accelerators that some machine has, anywhere, in a cloud, or in a region; spot or not."""
    dice = random.Random(SEED)
    kinds = sorted({(one.instance_type.gpu_type.value, int(one.instance_type.gpu_count)) for one in offers})
    places = sorted({(one.instance_type.provider, one.region) for one in offers})
    requests = []
    for _ in range(count):
        cloud, region = dice.choice(
            [(None, None), (dice.choice(["aws", "azure"]), None), dice.choice(places)]
        )
        any_of = dice.sample(kinds, dice.randint(1, 3))
        requests.append({"any_of": any_of, "cloud": cloud, "region": region, "spot": dice.random() < 0.5})
    return requests


def ours(request: dict, offers: list[Offer]) -> float | None:
    """Dollars an hour of our choice."""
    wanted = [Accelerators(GPUType(name), count) for name, count in request["any_of"]]
    try:
        chosen = cheapest(
            offers,
            wanted,
            spot=request["spot"],
            regions=[request["region"]] if request["region"] else None,
            providers=[request["cloud"]] if request["cloud"] else None,
        )
    except NoPlanError:
        return None
    return chosen.usd_per_hour


def verdicts(answers: list[dict], offers: list[Offer]) -> dict[str, int]:
    """How often we are cheaper, as cheap, dearer; and find what the peer does not, or miss what it finds."""
    counts = dict.fromkeys(("cheaper", "the same", "dearer", "only ours", "only theirs", "neither"), 0)
    for one in answers:
        us, them = ours(one["request"], offers), one["usd_per_hour"]
        if us is None or them is None:
            verdict = "neither" if us == them else "only ours" if them is None else "only theirs"
        else:
            close = math.isclose(us, them, rel_tol=1e-6)
            verdict = "the same" if close else "cheaper" if us < them else "dearer"
        counts[verdict] += 1
    return counts


def cheapest_machines(peer: str | None) -> None:
    offers = offers_of(Catalog.load())
    if peer is not None:
        requests = random_requests(offers, REQUESTS)
        asked = [
            {**one, "any_of": [[sky_name(GPUType(name)), count] for name, count in one["any_of"]]}
            for one in requests
        ]
        rows = sky_rows(offers)
        with tempfile.TemporaryDirectory() as home:
            lines = _ask(peer, "skypilot_requests.py", {"home": home, "rows": rows, "requests": asked})
        answers = [{"request": one, **line} for one, line in zip(requests, lines, strict=True)]
        document = {"offers": [_packed(one) for one in offers], "answers": answers}
        CHEAPEST.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    answers, offers = stored_choices()
    for verdict, count in verdicts(answers, offers).items():
        print(f"{verdict:12} {count}")


def stored_choices() -> tuple[list[dict], list[Offer]]:
    """The peer's answers, and the offers on which they were given."""
    document = json.loads(CHEAPEST.read_text())
    return document["answers"], [_unpacked(row) for row in document["offers"]]


def _packed(one: Offer) -> list:
    its = one.instance_type
    return [
        its.provider,
        its.name,
        its.gpu_type,
        its.gpu_count,
        one.region,
        one.zone,
        one.market,
        one.usd_per_hour,
    ]


def _unpacked(row: list) -> Offer:
    provider, name, gpu, count, region, zone, market, usd = row
    its = InstanceType(
        provider=provider,
        name=name,
        gpu_type=GPUType(gpu),
        gpu_count=count,
        gpu_memory_gib=0,
        vcpus=0,
        memory_gib=0,
        network_gbps=None,
        local_nvme_gib=0,
    )
    return Offer(
        instance_type=its,
        region=region,
        zone=zone,
        market=Market(market),
        usd_per_hour=usd,
        as_of=datetime.date.min,
        source="stored",
    )


def _ask(python: str, script: str, document: object) -> list[dict]:
    told = subprocess.run(
        [python, str(HERE / "peers" / script)],
        input=json.dumps(document),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=4 * 3600,
    )
    # A peer may print lines of its own between.
    return [json.loads(line) for line in told.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("claim", choices=["sizing", "cheapest"])
    parser.add_argument("--peer", metavar="PYTHON", help="ask the peer anew, with this Python")
    chosen = parser.parse_args()
    (sizing if chosen.claim == "sizing" else cheapest_machines)(chosen.peer)


if __name__ == "__main__":
    main()
