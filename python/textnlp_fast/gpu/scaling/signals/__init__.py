"""What engines export, as observations: `engines.py` knows the names, `figures.py` and `histograms.py` are pure
arithmetic over time, `replicas.py` and `prometheus_server.py` fetch.
"""
