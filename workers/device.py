"""The device a worker computes on."""

import os

import torch


def pick_device() -> torch.device:
    """The GPU that Ray gave this process, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def cpu_threads(workers_on_node: int) -> int:
    """torch threads for each of some workers that share a CPU node.

    Ray sets OMP_NUM_THREADS to a worker's CPU slots, which place work but do not measure it.
    """
    return max(1, len(os.sched_getaffinity(0)) // workers_on_node)
