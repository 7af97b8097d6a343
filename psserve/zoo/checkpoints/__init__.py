"""Checkpoints as files: architectures, tensors, tokenizers, adapters, and whether they fit the base."""
