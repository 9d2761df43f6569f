"""Bits per weight of a merged adapter, stored as base and factors, over the tensors that the merge changed.

Four rows a merge: the adapter is given (its own bytes in the form that was merged, and what is left to
store), and it is found from the two models at each effort. Every plan is carried out and decoded, and must
give the target's bytes. Seconds are of one core. Changes that are no merge are timed too, in milliseconds.

    python benches/low_rank.py [--json]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Before numpy: seconds of one core, comparable between machines and runs.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from formats import to_bf16
from measure import Results, Verdict, machine, pin_to_one_core
from ours import instruction_set
from pairs import CHECKPOINTS
from textnlp_fast.delta import codec, low_rank
from textnlp_fast.delta.low_rank import Factors
from textnlp_fast.delta.low_rank_planning import LowRankPlan, coded_bytes, plan_low_rank
from textnlp_fast.tensors import SafetensorsFile, TensorInfo, read_into

EFFORTS = ("fast", "default", "max")
LIMITS = {"adapter given": 0.01, "default": 1.2, "max": 0.95}
SCALE = 2.0


@dataclass(frozen=True)
class Merge:
    """One tensor before and after; ``adapter`` is None where the change is no merge."""

    name: str
    shape: tuple[int, int]
    base: bytes
    target: bytes
    adapter: Factors | None

    @property
    def weights(self) -> int:
        return self.shape[0] * self.shape[1]


def read(path: Path) -> dict[str, tuple[TensorInfo, bytes]]:
    """Matrices of a safetensors file by name."""
    found = {}
    for tensor in SafetensorsFile.open(path).tensors:
        if len(tensor.shape) == 2:
            data = bytearray(tensor.size_bytes)
            read_into(path, tensor.begin, data)
            found[tensor.name] = (tensor, bytes(data))
    return found


def real_merges(name: str) -> Iterator[Merge]:
    """Tensors that differ between ``base`` and the named checkpoint."""
    base, target = read(CHECKPOINTS / "base.safetensors"), read(CHECKPOINTS / f"{name}.safetensors")
    factors = read(CHECKPOINTS / "lora_factors.safetensors")
    for tensor, (info, data) in target.items():
        if data == base[tensor][1]:
            continue
        adapter = None
        if name.startswith("lora"):
            (a_info, a), (_, b) = factors[f"{tensor}.A"], factors[f"{tensor}.B"]
            adapter = Factors(info.shape[0], info.shape[1], a_info.shape[0], SCALE, a, b, "F32", "F32")
        yield Merge(tensor, (info.shape[0], info.shape[1]), base[tensor][1], data, adapter)


def made_merges(rounding: str | None) -> Iterator[Merge]:
    """The same kinds of tensors, made here; ``rounding`` None: a dense step instead of a merge."""
    rng = np.random.default_rng(11)
    for name, shape in (("q_proj", (512, 512)), ("gate_proj", (1536, 512))):
        weights = rng.standard_normal(shape) * 0.04 * rng.gamma(4, 0.25, (shape[0], 1))
        base = to_bf16(weights).tobytes()
        if rounding is None:
            step = rng.standard_normal(shape) * 3e-4 * rng.gamma(2, 0.5, shape)
            yield Merge(name, shape, base, to_bf16(weights + step).tobytes(), None)
            continue
        decay = np.linspace(1, 0.3, 16)[:, None]
        a, b = rng.standard_normal((16, shape[1])) * decay * 0.03, rng.standard_normal((shape[0], 16)) * 0.008
        parts = [part.astype(np.float32) for part in (a, b)]
        kind = "F32"
        if rounding == "delta":
            parts, kind = [to_bf16(part) for part in parts], "BF16"
        merged = Factors(*shape, 16, SCALE, parts[0].tobytes(), parts[1].tobytes(), kind, kind, rounding)
        given = Factors(*shape, 16, SCALE, merged.a, merged.b, kind, kind)
        yield Merge(name, shape, base, low_rank.predict(base, merged, dtype="BF16"), given)


def checked(merge: Merge, plan: LowRankPlan) -> LowRankPlan:
    """The plan, once its residual was coded and decoded to the target's bytes."""
    made = low_rank.predict(merge.base, plan.factors, dtype="BF16", threads=1)
    payload = codec.encode(merge.target, made, dtype="BF16", threads=1)
    out = bytearray(len(made))
    codec.decode_into(payload, out, made, threads=1)
    if bytes(out) != merge.target or len(payload) != plan.residual_bytes:
        raise RuntimeError(f"{merge.name}: the plan does not give the target back")
    return plan


def planned(merges: list[Merge], row: str) -> tuple[float, float, float]:
    """Bits per weight of the factors and of the residual, and CPU seconds, over some tensors."""
    factors = residual = weights = 0
    seconds = 0.0
    for merge in merges:
        given = merge.adapter if row == "adapter given" else None
        start = time.process_time()
        plan = plan_low_rank(
            merge.base, merge.target, merge.shape, "BF16",
            adapter=given, adapter_stored=given is not None, effort=row if given is None else "fast", threads=1,
        )  # fmt: skip
        seconds += time.process_time() - start
        weights += merge.weights
        if plan is None:
            residual += coded_bytes(merge.target, merge.base, "BF16", threads=1)
            continue
        checked(merge, plan)
        residual += plan.residual_bytes
        # A stored adapter costs the plan nothing; its own bytes count here, in the form that was merged.
        sides = ((plan.factors.a, plan.factors.a_dtype), (plan.factors.b, plan.factors.b_dtype))
        factors += sum(coded_bytes(data, None, kind, threads=1) for data, kind in sides)
    return 8 * factors / weights, 8 * residual / weights, seconds


def size_tables(results: Results, groups: dict[str, list[Merge]], *, judged: str | None) -> None:
    for name, merges in groups.items():
        weights = sum(merge.weights for merge in merges)
        dense = 8 * sum(coded_bytes(m.target, m.base, "BF16", threads=1) for m in merges) / weights
        rows: list[list[object]] = [["delta frames", None, dense, dense, None]]
        for row in ("adapter given", *EFFORTS):
            factors, residual, seconds = planned(merges, row)
            rows.append([row, factors, residual, factors + residual, seconds])
            if name == judged and row in LIMITS:
                value = residual if row == "adapter given" else factors + residual
                results.verdicts.append(
                    Verdict(
                        f"{row}: at most {LIMITS[row]} bits per weight", value <= LIMITS[row], f"{value:.4f}"
                    )
                )
        note = f"{weights} weights in {len(merges)} tensors; delta frames are what the tensors take without factors."
        results.add_table(
            f"{name}, bits per weight", ["", "factors", "residual", "in all", "CPU seconds"], rows, note=note
        )


def refusal_table(results: Results, merges: list[Merge]) -> None:
    rows: list[list[object]] = []
    for merge in merges:
        seconds = []
        for _ in range(5):
            start = time.process_time()
            plan = plan_low_rank(merge.base, merge.target, merge.shape, "BF16", threads=1)
            seconds.append(time.process_time() - start)
        rows.append([merge.name, merge.weights, "refused" if plan is None else "FOUND", 1e3 * min(seconds)])
    results.add_table("Changes that are no merge", ["tensor", "weights", "verdict", "CPU ms"], rows)
    results.verdicts.append(
        Verdict("dense changes are refused", all(row[2] == "refused" for row in rows), f"{len(rows)} tensors")
    )


def run() -> Results:
    results = Results("low_rank", machine(["numpy", "textnlp-fast"]) | {"kernels": instruction_set()})
    pin_to_one_core()
    if CHECKPOINTS.is_dir():
        size_tables(
            results,
            {f"base -> {n}": list(real_merges(n)) for n in ("lora_f32", "lora_bf16")},
            judged="base -> lora_f32",
        )
        refusal_table(results, list(real_merges("sft_0100")))
    else:
        results.settings = {"data": "self-made merges: limits are not judged on them"}
        size_tables(
            results, {f"self-made, {n}": list(made_merges(n)) for n in ("once", "delta")}, judged=None
        )
        refusal_table(results, list(made_merges(None)))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="also write benches/out/low_rank.json")
    arguments = parser.parse_args()
    results = run()
    results.show()
    if arguments.json:
        results.write()


if __name__ == "__main__":
    main()
