"""An external scaler for KEDA: it keeps its ScaledObjects and HPAs, and follows our policy.

`messages.py` is KEDA's interface, `serving.py` is the server.
Needs the extra `keda` (grpcio, protobuf).
"""
