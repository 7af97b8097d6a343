"""Tiny zoos of real architectures with random weights, for tests and benchmarks."""
