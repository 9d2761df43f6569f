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
from textnlp_fast.tensors.roles import KINDS, Role, role_of

__all__ = [
    "DTYPES",
    "DTYPE_BITS",
    "KINDS",
    "Header",
    "ModelFiles",
    "OtherFile",
    "Role",
    "SafetensorsFile",
    "TensorInfo",
    "check_relative_path",
    "parse_header",
    "read_into",
    "role_of",
]
