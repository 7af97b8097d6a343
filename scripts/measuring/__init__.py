"""What scripts/bench_smoke.py and scripts/gpu_first.py have in common. No part of the library."""
