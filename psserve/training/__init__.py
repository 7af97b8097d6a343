"""Cache-conditioned fine-tuning, its evaluation, and the reference that served answers must equal."""
