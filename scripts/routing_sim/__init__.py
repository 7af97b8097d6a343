"""Simulated prefill servers behind the router's own policies, for scripts/bench_routing.py and tests. No clock."""
