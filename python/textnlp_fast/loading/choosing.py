"""Which tensors a load is for, by names, patterns, files, and the arrays to fill."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.loading.places import Wanted
from textnlp_fast.tensors import TensorInfo
from textnlp_fast.tensors.slices import Slice, cut_of, slice_for

__all__ = ["Choice", "Names", "Slices"]

Names = Sequence[str] | Callable[[str], bool]
Slices = Mapping[str, Slice | tuple[int, int, int]]

_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Choice:
    """What the caller asked for."""

    names: Names | None = None
    files: Sequence[str] | None = None
    slices: Slices | None = None
    into: Mapping[str, Any] | None = None

    def of(self, tensors: Sequence[tuple[str, TensorInfo]]) -> dict[int, Wanted]:
        """The tensors that are wanted, by their place in the sequence of (file, tensor).

        Raises InvalidInputError if something that was asked for is not there, or is there twice.
        """
        chosen: dict[str, int] = {}
        wanted: dict[int, Wanted] = {}
        for index, (file, info) in enumerate(tensors):
            if self.files is not None and not any(fnmatch.fnmatchcase(file, each) for each in self.files):
                continue
            if not self._wants(info.name):
                continue
            if info.name in chosen:
                raise InvalidInputError(
                    f"tensor {info.name!r} is in {tensors[chosen[info.name]][0]!r} and in {file!r}",
                    hint="Say which with files=, a pattern of file names.",
                )
            chosen[info.name] = index
            cut = cut_of(info.name, info.shape, info.dtype, slice_for(info.name, self.slices or {}))
            wanted[index] = Wanted(info.name, info.dtype, info.shape, cut)
        self._check_all_found(chosen)
        return wanted

    def _wants(self, name: str) -> bool:
        if self.into is not None and name not in self.into:
            return False
        if self.names is None:
            return True
        if callable(self.names):
            return self.names(name)
        return any(name == each or fnmatch.fnmatchcase(name, each) for each in self._patterns())

    def _patterns(self) -> Sequence[str]:
        if isinstance(self.names, str):
            return (self.names,)
        return () if self.names is None or callable(self.names) else self.names

    def _check_all_found(self, chosen: Mapping[str, int]) -> None:
        lost = [each for each in self._patterns() if each not in chosen and not fnmatch.filter(chosen, each)]
        lost += [name for name in self.into or () if name not in chosen]
        lost += [
            each for each in self.slices or () if each not in chosen and not fnmatch.filter(chosen, each)
        ]
        if lost:
            more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
            raise InvalidInputError(
                f"there is no tensor for {', '.join(map(repr, lost[:_SHOWN]))}{more}",
                hint="Names are those of the checkpoint; patterns are like 'layers.0.*'.",
            )
