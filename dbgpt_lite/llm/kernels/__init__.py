"""Kernels for NVIDIA GPUs. What they compute in plain PyTorch: nf4.reference, and slotted.py for all of a step."""
