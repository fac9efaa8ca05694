"""The device a worker computes on."""

import torch


def pick_device() -> torch.device:
    """The GPU that Ray gave this process, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
