"""Recorded and made traces: rates, or single requests.

Three kinds of files, told apart by their header:
    time_s,requests_per_s                       rates, as ServeGen gives them once its clients are summed
    TIMESTAMP,ContextTokens,GeneratedTokens     Azure's LLM inference traces
    arrival_s,prompt_tokens,output_tokens       requests, as CSV, or as JSON lines with these keys
"""

from __future__ import annotations

import csv
import datetime
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from textnlp_fast.errors import InvalidInputError

if TYPE_CHECKING:
    from textnlp_fast.gpu.scaling.simulator.traffic import Bursts, ReplicaSpeed, TokenMix, Traffic

__all__ = ["MAX_DAYS", "MAX_ROWS", "RateTrace", "RequestTrace", "read_trace"]

MAX_ROWS: Final = 5_000_000
"""A longer file is refused: all of it is held in memory."""
MAX_DAYS: Final = 400
_LINE_CHARS: Final = 4096
_TOKENS: Final = 1e8
_RATES = ("time_s", "requests_per_s")
_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_REQUESTS = ("arrival_s", "prompt_tokens", "output_tokens")
_HINT: Final = (
    "A trace is a CSV with the header time_s,requests_per_s or arrival_s,prompt_tokens,output_tokens or "
    "TIMESTAMP,ContextTokens,GeneratedTokens, or JSON lines with the keys of the second."
)


@dataclass(frozen=True, kw_only=True)
class RateTrace:
    """Requests per second at certain times."""

    name: str
    times_s: Sequence[float]
    rates: Sequence[float]

    @property
    def days(self) -> float:
        return (self.times_s[-1] - self.times_s[0]) / 86400.0

    def traffic(
        self,
        *,
        scale: float = 1.0,
        days: float | None = None,
        seed: int = 0,
        bursts: Bursts | None = None,
        tokens: TokenMix | None = None,
        speed: ReplicaSpeed | None = None,
        step_s: int = 10,
    ) -> Traffic:
        """Arrivals at these rates, of the first `days`."""
        from textnlp_fast.gpu.scaling.simulator.traffic import traffic_of_rates  # noqa: PLC0415

        end = math.inf if days is None else self.times_s[0] + days * 86400.0
        kept = max(2, sum(time <= end for time in self.times_s))
        return traffic_of_rates(
            self.times_s[:kept],
            self.rates[:kept],
            name=self.name,
            scale=scale,
            seed=seed,
            bursts=bursts,
            tokens=tokens,
            speed=speed,
            step_s=step_s,
        )


@dataclass(frozen=True, kw_only=True)
class RequestTrace:
    """Single requests, in the order of their arrival; seconds since the first's whole second."""

    name: str
    arrivals_s: Sequence[float]
    prompt_tokens: Sequence[float]
    output_tokens: Sequence[float]
    start_s: float = 0.0

    @property
    def days(self) -> float:
        return self.arrivals_s[-1] / 86400.0

    def first(self, days: float) -> RequestTrace:
        """The requests of the first `days`, one at least."""
        kept = max(1, sum(time <= days * 86400.0 for time in self.arrivals_s))
        return RequestTrace(
            name=self.name,
            arrivals_s=self.arrivals_s[:kept],
            prompt_tokens=self.prompt_tokens[:kept],
            output_tokens=self.output_tokens[:kept],
            start_s=self.start_s,
        )

    def traffic(self, *, speed: ReplicaSpeed | None = None, step_s: int = 10) -> Traffic:
        """The same, as seconds and their work."""
        from textnlp_fast.gpu.scaling.simulator.traffic import traffic_of_requests  # noqa: PLC0415

        return traffic_of_requests(
            self.arrivals_s,
            self.prompt_tokens,
            self.output_tokens,
            name=self.name,
            speed=speed,
            step_s=step_s,
            start_s=self.start_s,
        )


def read_trace(path: Path) -> RateTrace | RequestTrace:
    """A trace file. Raises InvalidInputError, with the line, for one that breaks its format, ends early or is too long.

    Requests may be out of order, times of rates may not.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = _bounded(file, path)
            number, head = next(lines, (1, ""))
            if head.lstrip().startswith("{"):
                return _requests(path, _json_rows(path, number, head, lines))
            header = tuple(next(csv.reader([head]), []))
            if header == _RATES:
                return _rates(path, _csv_rows(path, lines, header))
            if header in (_AZURE, _REQUESTS):
                return _requests(path, _csv_rows(path, lines, header))
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="Give a file of rates or requests, or `sample` for a made one.",
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is no text: {error.reason} in it", hint=_HINT) from None
    except csv.Error as error:
        raise InvalidInputError(f"{path}, line 1: {error}", hint=_HINT) from None
    raise InvalidInputError(f"{path}, line {number}: {head[:60]!r} is no header of a trace", hint=_HINT)


def _wrong(path: Path, line: int, what: str) -> InvalidInputError:
    return InvalidInputError(f"{path}, line {line}: {what}", hint=_HINT)


def _bounded(file: Iterator[str], path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, with their numbers; one without an end is not read whole."""
    number = 0
    readline = file.readline  # type: ignore[attr-defined]
    while line := readline(_LINE_CHARS + 1):
        number += 1
        if len(line) > _LINE_CHARS:
            raise _wrong(path, number, f"the line is longer than {_LINE_CHARS} characters")
        if number > MAX_ROWS + 1:
            raise _wrong(path, number, f"a trace may have {MAX_ROWS} lines")
        if number == 1:
            line = line.removeprefix("\ufeff")
        if line.strip():
            yield number, line.strip("\r\n")


def _csv_rows(
    path: Path, lines: Iterator[tuple[int, str]], header: tuple[str, ...]
) -> Iterator[tuple[int, list[float]]]:
    for number, line in lines:
        cells = line.split(",")
        if len(cells) != len(header):
            raise _wrong(path, number, f"{len(cells)} values where the header has {len(header)}")
        first = (
            _time(path, number, cells[0]) if header == _AZURE else _number(path, number, cells[0], header[0])
        )
        yield (
            number,
            [first, *(_number(path, number, *pair) for pair in zip(cells[1:], header[1:], strict=True))],
        )


def _json_rows(
    path: Path, number: int, head: str, lines: Iterator[tuple[int, str]]
) -> Iterator[tuple[int, list[float]]]:
    def every() -> Iterator[tuple[int, str]]:
        yield number, head
        yield from lines

    for at, line in every():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _wrong(path, at, f"no JSON: {error}") from None
        if not isinstance(row, dict):
            raise _wrong(path, at, "no JSON object")
        missing = [key for key in _REQUESTS if key not in row]
        if missing:
            raise _wrong(path, at, f"{', '.join(missing)} is missing")
        bad = [
            key for key in _REQUESTS if not isinstance(row[key], int | float) or isinstance(row[key], bool)
        ]
        if bad:
            raise _wrong(path, at, f"{bad[0]} is no number")
        try:
            yield at, [float(row[key]) for key in _REQUESTS]
        except OverflowError:
            raise _wrong(path, at, "a number is too large") from None


def _number(path: Path, line: int, text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _wrong(path, line, f"{name} is {text[:40]!r}, no number") from None


def _time(path: Path, line: int, text: str) -> float:
    """Seconds since the epoch; without a zone it is UTC. Azure writes seven digits of a second."""
    stamp, dot, rest = text.strip().partition(".")
    digits = rest.split("+")[0].split("Z")[0]
    zone = rest[len(digits) :].replace("Z", "+00:00")
    try:
        at = datetime.datetime.fromisoformat(stamp + zone)
        if at.tzinfo is None:
            at = at.replace(tzinfo=datetime.timezone.utc)
        if dot and not digits.isdecimal():
            raise ValueError
        return at.timestamp() + (float(f"0.{digits}") if dot else 0.0)
    except (ValueError, OverflowError):
        raise _wrong(path, line, f"{text[:40]!r} is no time") from None


def _rates(path: Path, rows: Iterator[tuple[int, list[float]]]) -> RateTrace:
    times: list[float] = []
    rates: list[float] = []
    for line, (time, rate) in rows:
        if not (math.isfinite(time) and math.isfinite(rate) and rate >= 0):
            raise _wrong(path, line, "a time and a rate must be finite, and a rate not negative")
        if times and time <= times[-1]:
            raise _wrong(path, line, f"time {time:g} s does not come after {times[-1]:g} s")
        if times and time - times[0] > MAX_DAYS * 86400:
            raise _wrong(path, line, f"a trace may last {MAX_DAYS} days")
        times.append(time)
        rates.append(rate)
    if len(times) < 2:
        raise InvalidInputError(f"{path} has {len(times)} rates; a trace needs two", hint=_HINT)
    return RateTrace(name=path.stem, times_s=times, rates=rates)


def _requests(path: Path, rows: Iterator[tuple[int, list[float]]]) -> RequestTrace:
    found: list[tuple[float, float, float]] = []
    least, most = math.inf, -math.inf
    for line, (time, prompt, output) in rows:
        if not math.isfinite(time):
            raise _wrong(path, line, "a time must be finite")
        if not (0 <= prompt <= _TOKENS and 0 <= output <= _TOKENS):
            raise _wrong(path, line, f"tokens must be 0 to {_TOKENS:g}")
        least, most = min(least, time), max(most, time)
        if most - least > MAX_DAYS * 86400:
            raise _wrong(path, line, f"a trace may last {MAX_DAYS} days")
        found.append((time, prompt, output))
    if not found:
        raise InvalidInputError(f"{path} has no requests", hint=_HINT)
    found.sort()
    start = float(math.floor(found[0][0]))
    times, prompts, outputs = zip(*found, strict=True)
    return RequestTrace(
        name=path.stem,
        arrivals_s=[time - start for time in times],
        prompt_tokens=prompts,
        output_tokens=outputs,
        start_s=start,
    )
