"""Asks SkyPilot's optimizer for the cheapest machine; run by a Python that has it (`pip install skypilot`).

Reads from standard input {"home": folder, "rows": {cloud: [row of its catalogue]}, "requests": [...]}, writes the
catalogues into `home` as SkyPilot lays them out, and answers one JSON line a request: dollars an hour, or null. No
network: the optimizer is asked as it is, and told that both clouds are enabled.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import sys
from pathlib import Path

COLUMNS = {
    "aws": "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,"
    "AvailabilityZone,Arch",
    "azure": "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,Generation",
}
OTHERS = {
    "aws/images.csv": "Tag,Region,OS,OSVersion,ImageId,CreationDate,BaseImageId",
    "aws/instance_quota_mapping.csv": "InstanceType,OnDemandInstanceQuotaCode,SpotInstanceQuotaCode",
    "azure/images.csv": "Tag,Region,OS,OSVersion,ImageId,CreationDate,BaseImageId",
}


def write_catalogues(home, rows):
    from sky.skylet import constants  # noqa: PLC0415

    root = Path(home) / ".sky" / "catalogs" / constants.CATALOG_SCHEMA_VERSION
    names = sorted({row["AcceleratorName"] for its in rows.values() for row in its})
    tables = {f"{cloud}/vms.csv": (COLUMNS[cloud], its) for cloud, its in rows.items()}
    tables |= {name: (columns, []) for name, columns in OTHERS.items()}
    tables["common/accelerators.csv"] = (
        "AcceleratorName,Clouds",
        [{"AcceleratorName": name, "Clouds": "AWS,Azure"} for name in names],
    )
    for name, (columns, its) in tables.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, columns.split(","), restval="")
            writer.writeheader()
            writer.writerows(its)


def answer(sky, request):
    clouds = {"aws": sky.AWS(), "azure": sky.Azure()}
    wanted = {
        sky.Resources(
            cloud=clouds[request["cloud"]] if request["cloud"] else None,
            region=request["region"],
            accelerators={name: count},
            use_spot=request["spot"],
        )
        for name, count in request["any_of"]
    }
    task = sky.Task("t")
    task.set_resources(wanted)
    with sky.Dag() as dag:
        dag.add(task)
    try:
        sky.Optimizer.optimize(dag, quiet=True)
    except sky.exceptions.ResourcesUnavailableError:
        return None
    return task.best_resources.get_cost(3600)


def main():
    asked = json.load(sys.stdin)
    os.environ["HOME"] = asked["home"]
    os.environ["SKYPILOT_DISABLE_USAGE_COLLECTION"] = "1"
    write_catalogues(asked["home"], asked["rows"])
    out, sys.stdout = sys.stdout, sys.stderr
    import sky  # noqa: PLC0415
    from sky import check  # noqa: PLC0415
    from sky.adaptors import common  # noqa: F401, PLC0415

    check.get_cached_enabled_clouds_or_refresh = lambda *_, **__: [sky.AWS(), sky.Azure()]
    version = importlib.metadata.version("skypilot")
    for request in asked["requests"]:
        print(json.dumps({"usd_per_hour": answer(sky, request), "version": version}), file=out, flush=True)


if __name__ == "__main__":
    main()
