"""Machines with GPUs made of small files and canned answers, in the shapes that real ones have."""

from fakes.cuda_machine.answers import gpu_details, gpu_list, topology
from fakes.cuda_machine.machine import GPUS, CudaMachine, Model

__all__ = ["GPUS", "CudaMachine", "Model", "gpu_details", "gpu_list", "topology"]
