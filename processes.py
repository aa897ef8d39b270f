"""Several processes, one per GPU, started by torchrun; alone, a process is number 0 of 1."""

import atexit
import gc
import os
from datetime import timedelta

import torch
import torch.distributed as dist


def check_device(device) -> None:
    """Raise ValueError, in one sentence, for a device that is not here."""
    try:
        kind, index = torch.device(device).type, torch.device(device).index
    except RuntimeError:
        raise ValueError(f"--device {device} is no device; use cpu or cuda.") from None
    if kind == "cuda" and (index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {device}: torch sees {torch.cuda.device_count()} GPUs here; use --device cpu.")


def init_distributed(device: str) -> None:
    """Join the group that torchrun started, if it did; "cuda" then means this process's own GPU."""
    check_device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        patience = timedelta(hours=2)  # one process saves, or waits for slow programs, while the others wait for it
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=patience)
        atexit.register(_leave_processes)
        if device.startswith("cuda"):
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def _leave_processes() -> None:
    """gloo's threads abort a process that ends while anything holds their group: sharded weights in a cycle do."""
    gc.collect()
    dist.destroy_process_group()


def rank_and_size() -> tuple[int, int]:
    """(number of this process, how many there are)."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def all_gather(value) -> list:
    """What every process gave, in their order."""
    values = [None] * rank_and_size()[1]
    if len(values) == 1:
        return [value]
    dist.all_gather_object(values, value)
    return values


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor that may be sharded; every process has to ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # a DTensor
