"""Readers of one machine, each small; `gather` puts together what they find."""

from __future__ import annotations

from textnlp_fast.gpu.cuda_setup.facts import Facts, Gpu
from textnlp_fast.gpu.cuda_setup.machine import Machine
from textnlp_fast.gpu.cuda_setup.probes.gathering import gather, merge_gpus

__all__ = ["Facts", "Gpu", "Machine", "gather", "merge_gpus"]
