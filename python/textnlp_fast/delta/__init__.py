"""Which tensor against which base, into which bytes; and patches, the files that carry it."""

from textnlp_fast.delta.apply import ApplyReport, apply_patch
from textnlp_fast.delta.checking import check_promise
from textnlp_fast.delta.create import PatchReport, create_patch
from textnlp_fast.delta.inspect import PatchSummary, inspect_patch
from textnlp_fast.delta.patch_file import PatchFile, read_patch
from textnlp_fast.delta.squash import squash_patches

__all__ = [
    "ApplyReport",
    "PatchFile",
    "PatchReport",
    "PatchSummary",
    "apply_patch",
    "check_promise",
    "create_patch",
    "inspect_patch",
    "read_patch",
    "squash_patches",
]
