"""What is asked for: a model, its traffic, and the limits within which it may be served."""

from __future__ import annotations

import math
from dataclasses import dataclass

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.recommender.precision import WeightFormat, kv_bytes_of, weight_format
from textnlp_fast.gpu.recommender.serving import Traffic
from textnlp_fast.gpu.recommender.shape import ModelShape

__all__ = ["Workload", "check_is", "check_positive", "check_share", "check_whole"]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A model to serve. Lengths are means, in tokens. Raises InvalidInputError for what cannot be."""

    shape: ModelShape
    requests_per_s: float
    prompt: int = 1000
    output: int = 250
    ttft_s: float = 1.0
    """Target of the time to the first token."""
    tpot_s: float = 0.05
    """Target of the mean time between tokens."""
    weights: str = "bf16"
    """A name of `precision.WEIGHTS`, or `awq`, `gptq`."""
    kv_cache: str = "bf16"
    context: int | None = None
    """Tokens that one sequence may grow to; a replica has to hold one of them. None: prompt and output."""
    headroom: float = 0.0
    """Capacity to have beyond `requests_per_s`, as a share of it. Predictions are of steady arrivals."""

    def __post_init__(self) -> None:
        check_is("shape", self.shape, ModelShape)
        check_positive("requests_per_s", self.requests_per_s, most=1e7)
        check_whole("prompt", self.prompt, most=10**8)
        check_whole("output", self.output, most=10**8)
        check_positive("ttft_s", self.ttft_s, most=math.inf)
        check_positive("tpot_s", self.tpot_s, most=math.inf)
        if not (isinstance(self.headroom, (int, float)) and 0 <= self.headroom <= 10):
            raise InvalidInputError(f"headroom cannot be {self.headroom!r}", hint="0.2 is a fifth more.")
        weight_format(self.weights)
        kv_bytes_of(self.kv_cache)
        if self.context is not None:
            check_whole("context", self.context, most=10**8)
            if self.context < self.prompt + self.output:
                raise InvalidInputError(
                    f"a context of {self.context} tokens does not hold {self.prompt} of prompt "
                    f"and {self.output} of output"
                )
        if self.shape.max_context is not None and self.positions > self.shape.max_context:
            raise InvalidInputError(
                f"{self.shape.name} sees {self.shape.max_context} positions; {self.positions} are asked for",
                hint="Shorten prompts or outputs, or name a model with a longer context.",
            )

    @property
    def positions(self) -> int:
        """The longest that a sequence gets."""
        return self.context if self.context is not None else self.prompt + self.output

    @property
    def traffic(self) -> Traffic:
        """What a replica has to do with each request."""
        return Traffic(
            prompt=self.prompt,
            output=self.output,
            ttft_s=self.ttft_s,
            tpot_s=self.tpot_s,
            longest=self.positions,
        )

    @property
    def format(self) -> WeightFormat:
        """How weights are kept."""
        return weight_format(self.weights)

    @property
    def kv_bytes(self) -> float:
        """Bytes an element of the KV cache takes."""
        return kv_bytes_of(self.kv_cache)

    @property
    def capacity_per_s(self) -> float:
        """Requests a second to be ready for."""
        return self.requests_per_s * (1 + self.headroom)


def check_is(name: str, value: object, kind: type) -> None:
    """Raises InvalidInputError unless the value is of that kind."""
    if not isinstance(value, kind):
        raise InvalidInputError(f"{name} cannot be {value!r:.80}", hint=f"Give a {kind.__name__}.")


def check_positive(name: str, value: float, *, most: float) -> None:
    """Raises InvalidInputError unless the value is a number above 0 and not beyond `most`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
        raise InvalidInputError(f"{name} cannot be {value!r}", hint=f"Give a number above 0{_up_to(most)}.")


def check_share(name: str, value: float) -> None:
    """Raises InvalidInputError unless the value lies from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InvalidInputError(f"{name} cannot be {value!r}", hint="Give a share from 0 to 1.")


def check_whole(name: str, value: int, *, most: int) -> None:
    """Raises InvalidInputError unless the value is a whole number from 1 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidInputError(f"{name} cannot be {value!r}", hint=f"Give a whole number from 1 to {most}.")


def _up_to(most: float) -> str:
    return "" if math.isinf(most) else f", at most {most:g}"
