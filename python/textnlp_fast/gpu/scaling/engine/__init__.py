"""Our policy: how many replicas an LLM's traffic needs by the time that replicas ordered now would serve.

`demand.py` reads the load out of whatever is measured, `level.py` follows it through its noise, `forecast.py` learns
what the next cold start brings and how wrong it is, `margin.py` turns both into replicas at the SLO, `steps.py` decides
when a change is worth it, `llm_policy.py` puts them together and says why.
"""

from textnlp_fast.gpu.scaling.engine.llm_policy import LLMPolicy

__all__ = ["LLMPolicy"]
