"""Checkpoints of a run: written under a temporary name, then renamed, so that the last one always loads."""

import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from model import Policy, process_number

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
UNTIED = StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False)  # weights with two names have one here


def save_checkpoint(run: Path, step: int, policy: Policy, optimizers: list, state: dict, keep: int = 2) -> Path:
    """Write run/checkpoints/step-N (a Hugging Face folder and trainer.pt), then drop all but the newest `keep`. Where
    the folder's weights have fewer bits than those that are trained, trainer.pt has these, too.

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
        weights = policy.whole_weights()
        policy.save(unfinished, weights)
        states = [get_optimizer_state_dict(policy, optimizer, options=WHOLE) for optimizer in optimizers]
        if not writes:
            return folder
        rng = {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
        state = {"optimizers": states, "rng": rng, "step": step} | state
        if policy.save_dtype != policy.hf.dtype:
            state["weights"] = weights
        torch.save(state, unfinished / "trainer.pt")
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
    """Restore optimizers, random state and the bits that the folder's weights lack; returns what `save_checkpoint` was
    given as `state`, with the step."""
    state = torch.load(checkpoint / "trainer.pt", map_location="cpu", weights_only=True, mmap=True)
    if weights := state.pop("weights", None):
        set_model_state_dict(policy.hf, weights, options=UNTIED)
    for optimizer, saved in zip(optimizers, state.pop("optimizers"), strict=True):
        set_optimizer_state_dict(policy, optimizer, saved, options=WHOLE)
    rng = state.pop("rng")
    torch.set_rng_state(rng["torch"])
    if torch.cuda.is_available() and rng["cuda"]:
        torch.cuda.set_rng_state_all(rng["cuda"][: torch.cuda.device_count()])
    return state
