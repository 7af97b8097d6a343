"""Agent workloads, load generator, baselines, report and simulator: how the claim is checked."""
