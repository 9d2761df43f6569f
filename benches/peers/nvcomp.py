"""nvCOMP's ANS (nvidia-nvcomp-cu13), on a device: bf16 in its mode for 16-bit floats, the exponents coded."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .peer import PeerUnavailableError

# The default stream, by the number that the CUDA array interface gives it: the stopwatch's.
_STREAM = 1


class NvcompAns:
    """Arrays have ``__cuda_array_interface__``; ``data_type`` is nvCOMP's for their elements."""

    def __init__(self, device: int, *, data_type: str = "<f2") -> None:
        try:
            self._nvcomp: Any = import_module("nvidia.nvcomp")
        except ImportError as error:
            raise PeerUnavailableError(
                f"nvCOMP is not installed ({error}): pip install nvidia-nvcomp-cu13"
            ) from error
        try:
            self._codec = self._nvcomp.Codec(
                algorithm="ANS", data_type=data_type, device_id=device, cuda_stream=_STREAM
            )
        except RuntimeError as error:
            raise PeerUnavailableError(f"nvCOMP does not run here: {error}") from error
        self._data_type = data_type
        self.name = f"nvCOMP {self._nvcomp.__version__} ANS {data_type}"

    def source(self, array: Any) -> Any:
        return self._nvcomp.as_array(array, cuda_stream=_STREAM)

    def encode(self, source: Any) -> Any:
        return self._codec.encode(source)

    def size_bytes(self, encoded: Any) -> int:
        return int(encoded.buffer_size)

    def plan(self, encoded: Any) -> Any:
        """What decoding needs to know, so that it need not wait to read it."""
        return self._codec.decompression_config(encoded)

    def decode(self, encoded: Any, plan: Any) -> Any:
        return self._codec.decode(encoded, data_type=self._data_type, decompression_config=plan)
