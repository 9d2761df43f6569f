"""The acceptance criteria of the codec, and the verdict on each: met or not, and the case nearest to its limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from measure import Verdict
from pairs import Pair
from peers.roster import RECIPES

PRACTICAL_MB_S = 50
# Above the entropy that bench computes from the same bytes, tables and headers included.
DELTA_OVER_ENTROPY, STANDALONE_OVER_ENTROPY = 1.04, 1.003
# By kind of pair: what it is called, and the most that ours may take of the best practical peer.
RATIO_LIMITS = {
    "first_step": ("first steps", 0.12),
    "late_rl": ("later RL steps", 0.53),
    "early_tune": ("early fine-tunes", 0.55),
    "late_tune": ("late fine-tunes", 0.74),
    "pretraining": ("pre-training", 0.84),
    "adapter": ("merged adapters", 0.86),
}


@dataclass(frozen=True)
class SpeedLimit:
    """Ours at least ``at_least`` times as fast as ``rival`` in ``direction`` where a set's name has one of ``sets``."""

    what: str
    direction: str
    rival: str
    at_least: float
    sets: tuple[str, ...]


_RL = ("-> rl_",)
_DENSE = ("-> sft_0010", "-> sft_0100", "-> pre_0700", "-> lora_")
_OTHERS = ("-> rl_", "-> sft_0001")
SPEED_LIMITS = (
    SpeedLimit("RL pairs", "in_place", "gaps+values zstd-1", 1.0, _RL),
    SpeedLimit("RL pairs", "encode", "gaps+values zstd-1", 2.0, _RL),
    SpeedLimit("dense pairs", "decode", "BitX", 2.5, _DENSE),
    SpeedLimit("dense pairs", "encode", "BitX", 4.0, _DENSE),
    SpeedLimit("RL pairs and first steps", "decode", "BitX", 1.3, _OTHERS),
    SpeedLimit("RL pairs and first steps", "encode", "BitX", 1.3, _OTHERS),
    SpeedLimit("standalone", "decode", "zipnn", 1.2, ("",)),
    SpeedLimit("standalone", "encode", "zipnn", 2.0, ("",)),
)
TWO_THREADS_AT_LEAST = 1.8


@dataclass
class Sizes:
    """What the size table found for one pair or checkpoint: bits per weight, and the peers' encode speed in MB/s."""

    ours: float | None
    pooled: float
    apart: float
    peers: dict[str, float]
    # Of each peer's variants that encode fast enough, the smallest.
    practical: dict[str, float]
    speeds: dict[str, float]

    def best(self, among: Sequence[str] | None = None) -> str | None:
        """The smallest practical peer, of all or of those named."""
        names = [name for name in self.practical if among is None or name in among]
        return min(names, key=self.practical.__getitem__, default=None)

    def ratio(self, among: Sequence[str] | None = None) -> float | None:
        """Ours over the best practical peer."""
        best = self.best(among)
        return None if best is None or self.ours is None else self.ours / self.practical[best]


def at_most(
    criterion: str, values: Mapping[str, float], limits: Mapping[str, float], show: Callable[[float], str]
) -> Verdict:
    """Passes if no value is above its limit; says which one comes nearest or goes farthest over."""
    if not values:
        return Verdict(criterion, None, "–", "not measured here")
    over = ", ".join(f"{n} {show(v)} > {show(limits[n])}" for n, v in values.items() if v > limits[n])
    worst = max(values, key=lambda name: values[name] / limits[name])
    return Verdict(
        criterion,
        not over,
        f"nearest to the limit: {worst} {show(values[worst])} of {show(limits[worst])}",
        f"over: {over}" if over else "",
    )


def at_least(criterion: str, ratios: Mapping[str, float], limit: float) -> Verdict:
    """Passes if no ratio is below the limit; says which one comes nearest or goes farthest below."""
    if not ratios:
        return Verdict(criterion, None, "–", "not measured here")
    below = ", ".join(f"{name} {ratio:.2f}x" for name, ratio in ratios.items() if ratio < limit)
    worst = min(ratios, key=ratios.__getitem__)
    note = f"below: {below}" if below else ""
    return Verdict(criterion, not below, f"nearest to the limit: {worst} {ratios[worst]:.2f}x", note)


def size_verdicts(
    pairs: Sequence[Pair], deltas: Mapping[str, Sizes], alone: Mapping[str, Sizes]
) -> list[Verdict]:
    """Judges the real pairs and checkpoints: self-made ones were not there when the limits were set."""
    real = [pair for pair in pairs if pair.real]
    ours = {p.name: bits for p in real if (bits := deltas[p.name].ours) is not None}
    entropies = {p.name: DELTA_OVER_ENTROPY * deltas[p.name].pooled for p in real}
    # The prototype's bytes are known to three decimals, and asked for only where they are the harder limit.
    prototype = {p.name: p.limit_bits for p in real if p.limit_bits and p.limit_bits < entropies[p.name]}
    verdicts = [
        at_most("deltas within 4 % of pooled H(ULP given the base's exponent)", ours, entropies, _bits),
        at_most(
            "no pair above the prototype's bytes, where that is less",
            {name: round(ours[name], 3) for name in prototype if name in ours},
            prototype,
            _bits,
        ),
    ]
    for kind, (title, limit) in RATIO_LIMITS.items():
        of_kind = {pair.name: deltas[pair.name] for pair in real if pair.kind == kind}
        for whom, among in (("practical peer", None), ("practical delta recipe", RECIPES)):
            found = {name: sizes.ratio(among) for name, sizes in of_kind.items()}
            ratios = {name: ratio for name, ratio in found.items() if ratio is not None}
            verdict = at_most(
                f"{title} at most {limit}x the best {whom}", ratios, dict.fromkeys(ratios, limit), _times
            )
            rivals = sorted({str(of_kind[name].best(among)) for name in ratios})
            verdict.measured += f"; best: {', '.join(rivals)}" if rivals else ""
            verdicts.append(verdict)
    return verdicts + _standalone_verdicts(alone)


def _standalone_verdicts(alone: Mapping[str, Sizes]) -> list[Verdict]:
    ours = {name: sizes.ours for name, sizes in alone.items() if sizes.ours is not None}
    # The smaller of the two entropies is the harder limit.
    limits = {n: STANDALONE_OVER_ENTROPY * min(s.pooled, s.apart) for n, s in alone.items()}
    fse = {n: s.peers["openzl FSE"] for n, s in alone.items() if "openzl FSE" in s.peers}
    return [
        at_most(
            "standalone bf16 within 0.3 % of exponent entropy (a table for each tensor) + 8",
            ours,
            limits,
            _bits,
        ),
        at_most(
            "standalone bf16 at or under openzl FSE", {n: b for n, b in ours.items() if n in fse}, fse, _bits
        ),
    ]


def speed_verdicts(ratios: Callable[[str, str, str], Mapping[str, float]]) -> list[Verdict]:
    """``ratios(what, direction, rival)``: by real set, how many times faster ours is; ``what``: delta, standalone."""
    verdicts = []
    for limit in SPEED_LIMITS:
        what = "standalone" if limit.what == "standalone" else "delta"
        found = ratios(what, limit.direction, limit.rival)
        judged = {name: ratio for name, ratio in found.items() if any(part in name for part in limit.sets)}
        direction = limit.direction.replace("in_place", "decode in place")
        criterion = f"{limit.what}: {direction} at least {limit.at_least}x {limit.rival}"
        verdicts.append(at_least(criterion, judged, limit.at_least))
    return verdicts


def _bits(value: float) -> str:
    return f"{value:.4f}"


def _times(value: float) -> str:
    return f"{value:.3f}x"
