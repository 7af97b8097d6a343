"""Agent workloads: generators, their presets, and traces, all as lists of `psserve.bench.session.Session`."""
