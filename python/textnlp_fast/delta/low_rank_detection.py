"""Whether a change is of low rank: a glance at the spectrum of a small sample.

What both ends show of a merged adapter is its product plus the rounding of each weight, which is noise of known size:
uniform over the rounding interval. The largest singular value of such noise in an m x n matrix is close to its standard
deviation times sqrt(m) + sqrt(n); what stands above that is signal, and how many values do is the rank.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta.rounding_intervals import FREE, Intervals, Words, intervals_of

__all__ = ["detect_rank", "evenly", "rank_of"]

# Rows and columns of the sample at first, and of the second look at changes whose rank the first cannot tell.
FIRST_LOOK: Final = 256
SECOND_LOOK: Final = 1024
_ABOVE_NOISE: Final = 1.25
_MOST_OF_SAMPLE: Final = 0.6
# Energy behind the rank, in parts of what rounding gives.
_LEFT: Final = (0.7, 1.25)
# Sampled rows and columns that must have changed: below, there is nothing for factors to save.
_LEAST_CHANGED: Final = 0.02


def evenly(count: int, most: int) -> npt.NDArray[np.intp]:
    """At most ``most`` of the indices below ``count``, spread evenly; a prime step off the grid of attention heads."""
    if count <= most:
        return np.arange(count)
    return (np.arange(most) * (count / most) + (np.arange(most) * 7919) % max(1, count // most)).astype(
        np.intp
    ) % count


def rank_of(intervals: Intervals) -> int | None:
    """Rank of a change; 0 if it has none, None where too many singular values stand out to tell."""
    rows, columns = intervals.width.shape
    noise = np.square(intervals.width, dtype=np.float64) / 12
    noise[intervals.low == -FREE] = 0
    # Weights differ in size by row and column: the noisiest row and column bound the largest value of the noise.
    edge = np.sqrt(noise.sum(axis=0).max()) + np.sqrt(noise.sum(axis=1).max())
    middle = intervals.middle.astype(np.float64)
    squares = np.linalg.eigvalsh(middle @ middle.T if rows <= columns else middle.T @ middle)[::-1]
    rank = int((squares > np.square(edge * _ABOVE_NOISE)).sum())
    if rank > _MOST_OF_SAMPLE * len(squares):
        return None
    # What is left must be rounding and no more, in the directions that the rank leaves it: a dense change leaves more
    # behind, a sparse one less.
    expected = noise.sum() * (1 - rank / rows) * (1 - rank / columns)
    return rank if _LEFT[0] * expected <= squares[rank:].sum() <= _LEFT[1] * expected else 0


def detect_rank(base: Words, target: Words, dtype: str, *, thorough: bool = False) -> int:
    """Rank of the change between two matrices of words; 0 if it is none that factors could tell.

    Takes milliseconds: it looks at 256 rows and columns, and sees ranks up to about 150. ``thorough`` looks at 1024
    where the rank may be higher, in some tenths of a second.
    """
    for look in (FIRST_LOOK, SECOND_LOOK) if thorough else (FIRST_LOOK,):
        some = np.ix_(evenly(base.shape[0], look), evenly(base.shape[1], look))
        before, after = base[some], target[some]
        if np.mean(before != after) < _LEAST_CHANGED:
            return 0
        rank = rank_of(intervals_of(before, after, dtype))
        if rank is not None:
            return rank
        if min(base.shape) <= look:
            break
    return 0
