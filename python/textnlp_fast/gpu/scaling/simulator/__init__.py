"""The simulator: recorded or made traffic against any policy, with cold starts, queues and prices.

`traffic.py` makes arrivals out of rates or requests, `fluid.py` runs a policy over them.
"""
