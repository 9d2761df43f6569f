"""The autoscaler that runs: a loop around a policy, one holder at a time, and a log that says why.

`period.py` makes one period of one fleet, `running.py` keeps making them under a lease, `book.py` is what outlives a
process, `records.py` its bytes, `cold_starts.py` measures, `explaining.py` puts records into words, `manager.py` is the
face.
"""

from textnlp_fast.gpu.scaling.autoscaler.manager import GPUAutoscalerManager

__all__ = ["GPUAutoscalerManager"]
