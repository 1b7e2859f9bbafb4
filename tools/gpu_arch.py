"""Prints the architecture of the first GPU as nvcc writes it (90 for an H100), or says why there is none."""

import sys

import torch

if not torch.cuda.is_available():
    sys.exit(
        f"no GPU: torch {torch.__version__} finds none (no driver, or a build of torch without CUDA)"
    )
print("{}{}".format(*torch.cuda.get_device_capability()))
