"""Model files as they lie on disk: safetensors headers, Hugging Face directories, what is refused in them."""

from textnlp_fast.tensors.element_types import DTYPES
from textnlp_fast.tensors.format import (
    DTYPE_BITS,
    Header,
    SafetensorsFile,
    TensorInfo,
    parse_header,
    read_into,
)
from textnlp_fast.tensors.model_files import ModelFiles, OtherFile, check_relative_path

__all__ = [
    "DTYPES",
    "DTYPE_BITS",
    "Header",
    "ModelFiles",
    "OtherFile",
    "SafetensorsFile",
    "TensorInfo",
    "check_relative_path",
    "parse_header",
    "read_into",
]
