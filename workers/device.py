"""The device a worker computes on."""

import os

import torch


def hide_other_gpus() -> None:
    """Ray lets a worker without GPUs see all of its node's. To be called before torch looks for any."""
    import ray  # the engine itself does without

    if ray.is_initialized() and not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pick_device() -> torch.device:
    """The GPU that Ray gave this process, or the CPU. Training workers of one node see each other's GPUs, and Ray has
    made each one's own the current one."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def put(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on the device, without waiting for what that still computes: CUDA copies alongside from
    pinned memory alone."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
