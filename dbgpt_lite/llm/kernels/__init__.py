"""Kernels for NVIDIA GPUs, each beside a plain PyTorch reference."""
