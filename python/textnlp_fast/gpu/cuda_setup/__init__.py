"""CUDA setup: looks at a machine and says what fits, what does not, and which commands mend it.

>>> from textnlp_fast.gpu.cuda_setup import examine
>>> report = examine()
>>> [verdict.summary for verdict in report.verdicts if verdict.level == "problem"]
[]
"""

from __future__ import annotations

from textnlp_fast.gpu.cuda_setup.environment_file import environment_of, write_environment
from textnlp_fast.gpu.cuda_setup.facts import Facts
from textnlp_fast.gpu.cuda_setup.machine import Machine
from textnlp_fast.gpu.cuda_setup.report import Report, diagnose, examine
from textnlp_fast.gpu.cuda_setup.verdicts import Level, Verdict

__all__ = [
    "Facts",
    "Level",
    "Machine",
    "Report",
    "Verdict",
    "diagnose",
    "environment_of",
    "examine",
    "write_environment",
]
