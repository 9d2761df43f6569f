"""The simulator: recorded or made traffic against any policy, with cold starts, queues and prices.

`traces.py` reads and `seasons.py` makes traces, `traffic.py` makes arrivals out of them; `fluid.py` runs a policy over
seconds of work, `events.py` over single requests; `oracle.py` is the least that a fleet can cost, and `runs.py` has all
policies by name and their frontiers.
"""
