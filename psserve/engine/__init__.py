"""What psserve adds to SGLang: hooks, a CPU platform and the worker's entry point."""
