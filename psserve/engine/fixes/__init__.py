"""Defects of SGLang that psserve mends from outside, each until a release has mended it itself."""
