"""SGLang on any CPU, as an out-of-tree platform: PyTorch's own operators instead of AMX kernels."""
