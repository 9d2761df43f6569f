"""Which replicas run on spot, in which zones, and how many on demand.

`market.py` is what a mix policy sees and says; `mix.py` decides, `survival.py` and `planning.py` are what it knows and
weighs; `hedge.py` is SpotHedge, the peer; `traces.py`, `simulate.py` and `oracle.py` try them; `acting.py` carries a
mix out.
"""
