"""What the level will be when replicas that are ordered now serve, and how wrong that usually is.

The change of the log level over the lead is predicted by recursive least squares (Haykin, Adaptive Filter Theory, ch.
10) from how far the level stands above its means of five minutes, half an hour and two hours (a trend has a positive
weight, a return to the mean a negative one) and from what the time of day and of the week usually brings. All weights
begin at zero, which is the forecast that nothing changes, and move as far as they have earned: on traffic without
seasons the seasons stay at nothing. The error of its own forecasts is tracked, not that of a model, and is larger while
the load climbs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from textnlp_fast.gpu.scaling.engine.season import Season
from textnlp_fast.gpu.scaling.numbers import number, numbers, whole

__all__ = ["Forecast"]

_MEANS_S: Final = (300.0, 1800.0, 7200.0)
_DAY_S: Final = 86400.0
_SAMPLE_S: Final = 30.0
_MEMORY_S: Final = 4 * 3600.0
_TRUST: Final = 1.0
"""Variance of the weights before anything is learned, in units of the noise's."""
_WANDER: Final = 2e-7
"""By how much the weights' variance grows a sample: old lessons fade."""
_CLIMB: Final = 0.06
"""How the error's variance grows with the square of the climb, measured in its usual square."""
_FEATURES: Final = 5
_MOST: Final = 0.7
_LEAST_SIGMA: Final = 0.03


class Forecast:
    """`change` is the predicted change of the log level over the lead, `sigma` the standard deviation of its error."""

    __slots__ = (
        "_climb", "_covariance", "_day", "_features", "_lead_s", "_looks", "_means", "_next_s", "_pending", "_samples",
        "_sigma2", "_week", "_weights", "change", "sigma",
    )  # fmt: skip

    def __init__(self, lead_s: float) -> None:
        self._lead_s = lead_s
        self._sigma2 = min(0.3, 0.12 * math.sqrt(max(lead_s, 1.0) / 180.0)) ** 2
        self.change, self.sigma = 0.0, math.sqrt(self._sigma2)
        self._climb = 0.005
        self._means: list[float] = []
        self._features = [0.0] * _FEATURES
        self._weights = [0.0] * _FEATURES
        self._covariance = [[_TRUST if i == j else 0.0 for j in range(_FEATURES)] for i in range(_FEATURES)]
        self._pending: deque[tuple[float, list[float], float, float]] = deque()
        self._next_s = -math.inf
        self._samples = self._looks = 0
        self._day, self._week = Season(_DAY_S), Season(7 * _DAY_S)

    @property
    def variance(self) -> float:
        """Of the error at the lead, whatever the climb."""
        return self._sigma2

    def look(self, time_s: float, log_level: float, elapsed_s: float) -> None:
        """Takes in the level and predicts its change over the lead."""
        means, features, lead_s = self._means, self._features, self._lead_s
        if not means:
            means.extend([log_level] * len(_MEANS_S))
        self._looks += 1
        # A plain mean until a span is full: the first level may be no level to compare with.
        plain = 1.0 / self._looks
        for place, span in enumerate(_MEANS_S):
            means[place] += (log_level - means[place]) * max(plain, -math.expm1(-elapsed_s / span))
            features[place] = log_level - means[place]
        climb = features[0] * features[0] if features[0] > 0.0 else 0.0
        self._climb += (climb - self._climb) * min(1.0, elapsed_s / _MEMORY_S / 2)
        if time_s >= self._next_s:
            self._next_s = time_s + _SAMPLE_S
            features[3] = self._day.change(time_s, lead_s)
            features[4] = self._week.change(time_s, lead_s)
            self._day.learn(time_s, log_level)
            self._week.learn(time_s, log_level)
            self._pending.append((time_s + lead_s, features.copy(), log_level, self._predicted()))
            while self._pending and self._pending[0][0] <= time_s:
                due_s, then, level, predicted = self._pending.popleft()
                # One that an outage of the metrics made late says nothing of this lead.
                if time_s - due_s < 2 * _SAMPLE_S:
                    self._learn(then, log_level - level, predicted)
        self.change = self._predicted()
        climbing = min(climb / self._climb, 60.0) if self._climb > 0.0 else 0.0
        self.sigma = math.sqrt(self._sigma2 * max(0.5, 1.0 + _CLIMB * (climbing - 1.0)))

    def _predicted(self) -> float:
        weights, features = self._weights, self._features
        own = weights[0] + weights[1] + weights[2]
        # More load must never mean fewer replicas: what the level itself weighs stays above zero.
        tame = 1.0 if own >= -0.9 else 0.9 / -own
        change = tame * (weights[0] * features[0] + weights[1] * features[1] + weights[2] * features[2])
        change += weights[3] * features[3] + weights[4] * features[4]
        return max(-_MOST, min(_MOST, change))

    def _learn(self, features: list[float], change: float, predicted: float) -> None:
        weights, covariance = self._weights, self._covariance
        error = change - sum(map(float.__mul__, weights, features))
        projected = [sum(map(float.__mul__, row, features)) for row in covariance]
        scale = 1.0 + sum(map(float.__mul__, features, projected)) / self._sigma2
        step = error / (scale * self._sigma2)
        for i, toward in enumerate(projected):
            weights[i] += step * toward
            row, factor = covariance[i], toward / (scale * self._sigma2)
            for j in range(_FEATURES):
                row[j] -= factor * projected[j]
            row[i] = min(_TRUST, max(row[i], 0.0) + _WANDER)
        missed = change - predicted
        self._samples += 1
        share = max(_SAMPLE_S / _MEMORY_S, 1.0 / (60 + self._samples))
        self._sigma2 += (min(missed * missed, 0.5) - self._sigma2) * share
        self._sigma2 = max(_LEAST_SIGMA * _LEAST_SIGMA, self._sigma2)

    def snapshot(self) -> Mapping[str, Any]:
        return {
            "sigma2": self._sigma2,
            "climb": self._climb,
            "means": list(self._means),
            "features": list(self._features),
            "weights": list(self._weights),
            "covariance": [list(row) for row in self._covariance],
            "pending": [[due, list(features), level, said] for due, features, level, said in self._pending],
            "next_s": self._next_s if math.isfinite(self._next_s) else None,
            "samples": self._samples,
            "looks": self._looks,
            "day": self._day.snapshot(),
            "week": self._week.snapshot(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._sigma2, self._climb = number(state["sigma2"]), number(state["climb"])
        means = state["means"]
        self._means = numbers(means, len(_MEANS_S)) if means else []
        self._features = numbers(state["features"], _FEATURES)
        self._weights = numbers(state["weights"], _FEATURES)
        covariance = state["covariance"]
        if len(covariance) != _FEATURES or self._sigma2 <= 0.0:
            raise ValueError("a forecast of another shape")
        self._covariance = [numbers(row, _FEATURES) for row in covariance]
        self._pending = deque(
            (number(due), numbers(features, _FEATURES), number(level), number(said))
            for due, features, level, said in state["pending"]
        )
        self._next_s = -math.inf if state["next_s"] is None else number(state["next_s"])
        self._samples, self._looks = whole(state["samples"]), whole(state["looks"])
        self._day.restore(state["day"])
        self._week.restore(state["week"])
