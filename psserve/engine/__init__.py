"""What psserve adds to SGLang: hooks, a CPU platform and the worker's entry point.

Nothing of SGLang is copied or edited: everything goes through its plugin entry points (see `plugin.py`).
This package knows SGLang and nothing of HTTP routing, zoos or fleets.
"""
