"""How many replicas: a policy that is a function, the simulator that tries it, and what carries its decisions out.

`observation.py` is what a policy sees, `decision.py` what it says, `policy.py` what each policy is and how ours is set.
"""
