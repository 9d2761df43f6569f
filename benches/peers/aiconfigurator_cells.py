"""Asks AIConfigurator about workloads; run by a Python that has it (`pip install aiconfigurator`).

Reads a JSON list of cells from standard input and writes one JSON line an answer, in order: the fewest GPUs of
aggregated serving that it finds, and the best row of every parallel layout. Lines are flushed one by one, so that a run
that was cut off is not lost.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import logging
import sys
import time
import warnings

KEPT = ("tp", "pp", "dp", "moe_tp", "moe_ep", "bs", "ttft", "tpot", "seq/s", "memory", "num_total_gpus")
WORDS = ("gemm", "kvcache", "moe", "version")


def _rows(table, tpot_ms):
    """The rows of a table of configurations that keep the target, as plain values."""
    rows = []
    for row in table.to_dict("records") if table is not None else []:
        if row["tpot"] <= tpot_ms and "total_gpus_needed" in row:
            kept = {name: float(row[name]) for name in KEPT if name in row}
            words = {name: str(row[name]) for name in WORDS if name in row}
            rows.append({**kept, **words, "gpus": int(row["total_gpus_needed"])})
    return rows


def answer(cell):
    from aiconfigurator.cli import api  # noqa: PLC0415

    # Its search of disaggregated serving takes most of its time, and is another question.
    if not isinstance(api.build_default_tasks, functools.partial):
        api.build_default_tasks = functools.partial(api.build_default_tasks, serving_mode="agg")
    began = time.process_time()
    try:
        found = api.cli_recommend(
            cell.get("path", cell["model"]),
            cell["system"],
            target_request_rate=cell["rps"],
            backend="vllm",
            database_mode="SILICON",
            isl=cell["prompt"],
            osl=cell["output"],
            ttft=cell["ttft_s"] * 1000,
            tpot=cell["tpot_s"] * 1000,
            top_n=100,
        )
    except Exception as error:  # noqa: BLE001 - whatever it says is its answer
        return {"gpus": None, "why": f"{type(error).__name__}: {error}"[:300]}
    rows = [row for table in found.best_configs.values() for row in _rows(table, cell["tpot_s"] * 1000)]
    return {
        "gpus": min((row["gpus"] for row in rows), default=None),
        "layouts": rows,
        "cpu_s": round(time.process_time() - began, 1),
    }


def main():
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    version = importlib.metadata.version("aiconfigurator")
    cells = json.load(sys.stdin)
    out = sys.stdout
    sys.stdout = sys.stderr
    for cell in cells:
        print(json.dumps({"cell": cell, "version": version, **answer(cell)}), file=out, flush=True)


if __name__ == "__main__":
    main()
