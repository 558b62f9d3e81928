"""Kernels for NVIDIA GPUs, each beside a plain PyTorch reference that runs in its place on a CPU."""
