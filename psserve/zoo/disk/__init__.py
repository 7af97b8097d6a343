"""A zoo's directory: its manifests, the modules that they describe, and how files in it are changed safely."""
