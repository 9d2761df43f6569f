"""safetensors' own functions, which know `textnlp://` URLs as well as files.

    from textnlp_fast.integrations.safetensors import safe_open
    from textnlp_fast.integrations.safetensors.torch import load_file, save_file     # or .numpy

Names, parameters and results are those of the package `safetensors`; paths are handed to it. A URL names a version,
or one of its safetensors files (`textnlp://name@champion/model.safetensors`); without a path all that the version has
are meant, as one. What is read from a repository is decoded in memory, without a file; whole tensors are verified.
"""

from textnlp_fast.integrations.safetensors.opening import StoredSlice, StoredTensorFile, safe_open

__all__ = ["StoredSlice", "StoredTensorFile", "safe_open"]
