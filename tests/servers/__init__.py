"""The scanner against real mail servers, in a small signed mail world on loopback.

`prepare` builds the servers' roots once, outside the clone; `world` starts them in namespaces of their own; `rows` is
the truth: what each host and domain of the world is, and which words a scan owes it.
"""
