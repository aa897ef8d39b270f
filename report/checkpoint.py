"""Checkpoints of a run: written under a temporary name, then renamed, so that the last one always loads."""

import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict

from model import Policy, process_number

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def save_checkpoint(run: Path, step: int, policy: Policy, optimizers: list, state: dict, keep: int = 2) -> Path:
    """Write run/checkpoints/step-N (a Hugging Face folder and trainer.pt), then drop all but the newest `keep`.

    Raises OSError with one sentence where the disk is full; earlier checkpoints stay whole. Every process has to call
    it, the first one writes.
    """
    folder = run / "checkpoints" / f"step-{step:06d}"
    unfinished = folder.with_name(f".{folder.name}.tmp")
    writes = process_number()[0] == 0
    try:
        if writes:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        policy.save(unfinished)
        states = [get_optimizer_state_dict(policy, optimizer, options=WHOLE) for optimizer in optimizers]
        if not writes:
            return folder
        rng = {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
        torch.save({"optimizers": states, "rng": rng, "step": step} | state, unfinished / "trainer.pt")
    except (OSError, RuntimeError, SafetensorError) as error:  # what a full disk is called depends on who writes
        if writes:
            shutil.rmtree(unfinished, ignore_errors=True)
        raise OSError(
            f"Checkpoint {folder} could not be written ({error}). Free some disk space; older ones are intact."
        ) from error
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(unfinished, folder)
    for old in sorted(folder.parent.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return folder


def latest_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    return max((run / "checkpoints").glob("step-*"), default=None)


def load_trainer_state(checkpoint: Path, policy: Policy, optimizers: list) -> dict:
    """Restore optimizers and random state; returns what `save_checkpoint` was given as `state`, with the step."""
    state = torch.load(checkpoint / "trainer.pt", map_location="cpu", weights_only=True, mmap=True)
    for optimizer, saved in zip(optimizers, state.pop("optimizers"), strict=True):
        set_optimizer_state_dict(policy, optimizer, saved, options=WHOLE)
    rng = state.pop("rng")
    torch.set_rng_state(rng["torch"])
    if torch.cuda.is_available() and rng["cuda"]:
        torch.cuda.set_rng_state_all(rng["cuda"][: torch.cuda.device_count()])
    return state
