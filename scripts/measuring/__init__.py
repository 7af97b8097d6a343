"""What scripts/bench_smoke.py and scripts/gpu_check.py have in common. No part of the library."""
