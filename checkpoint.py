"""Checkpoints of a run: written under a temporary name, then renamed, so that the last one always loads.

Folders named exactly checkpoints/step-NNNNNN are the run's own: the newest is resumed from, the oldest are removed.
Anything else in there (step-best, step-000600-good) is the user's, and is left alone.
"""

import errno
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError

from model import Policy
from processes import rank_and_size

WHOLE = {"full_state_dict": True, "cpu_offload": True}  # StateDictOptions
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ZIP_WRITER = ("PytorchStreamWriter failed writing", "unexpected pos")  # torch.save does not say why


def save_checkpoint(run: Path, step: int, policy: Policy, optimizers: list, state: dict, keep: int = 5) -> Path:
    """Write run/checkpoints/step-N (a Hugging Face folder and trainer.pt), then remove all but the newest `keep` of the
    run's own; 0 keeps all. Where the folder's weights have fewer bits than those that are trained, trainer.pt has
    these, too.

    Raises OSError with one sentence where it cannot be written; earlier checkpoints stay whole. Every process has
    to call it, the first one writes.
    """
    # a second to import, which `--help` does without
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    folder = run / "checkpoints" / f"step-{step:06d}"
    unfinished = folder.with_name(f".{folder.name}.tmp")
    writes = rank_and_size()[0] == 0
    try:
        if writes:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        weights = policy.whole_weights()
        policy.save(unfinished, weights)
        options = StateDictOptions(**WHOLE)
        states = [get_optimizer_state_dict(policy, optimizer, options=options) for optimizer in optimizers]
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
        words = (*map(os.strerror, NO_ROOM), *ZIP_WRITER)  # for a full disk or quota, of Python, safetensors, torch
        full = getattr(error, "errno", None) in NO_ROOM or any(said in str(error) for said in words)
        remedy = "Free some disk space; older" if full else "Older"
        raise OSError(f"Checkpoint {folder} could not be written ({error}). {remedy} ones are intact.") from error
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(unfinished, folder)
    for old in checkpoints(run)[:-keep] if keep else []:
        if not old.is_symlink():  # somebody moved it to another disk
            shutil.rmtree(old)
    return folder


def step_of(checkpoint: Path) -> int:
    """How many steps were taken before it was written; -1 for a name that is not exactly one of the run's own."""
    number = checkpoint.name.removeprefix("step-")
    whole = number.isascii() and number.isdigit() and checkpoint.name == f"step-{int(number):06d}"
    return int(number) if whole else -1


def checkpoints(run: Path) -> list[Path]:
    """The run's own checkpoints, oldest first."""
    own = [path for path in (run / "checkpoints").glob("step-*") if step_of(path) >= 0 and path.is_dir()]
    return sorted(own, key=step_of)


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run, or None."""
    return (checkpoints(run) or [None])[-1]


def load_trainer_state(checkpoint: Path, policy: Policy, optimizers: list) -> dict:
    """Restore optimizers, random state and the bits that the folder's weights lack; returns what `save_checkpoint` was
    given as `state`, with the step."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict, set_optimizer_state_dict

    state = torch.load(checkpoint / "trainer.pt", map_location="cpu", weights_only=True, mmap=True)
    if weights := state.pop("weights", None):
        # not strict: weights with two names have one here
        set_model_state_dict(policy.hf, weights, options=StateDictOptions(**WHOLE, strict=False))
    for optimizer, saved in zip(optimizers, state.pop("optimizers"), strict=True):
        decays = [group["weight_decay"] for group in optimizer.param_groups]  # as told now; the learning rate is anyway
        set_optimizer_state_dict(policy, optimizer, saved, options=StateDictOptions(**WHOLE))
        for group, decay in zip(optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay
    rng = state.pop("rng")
    torch.set_rng_state(rng["torch"])
    if torch.cuda.is_available() and rng["cuda"]:
        torch.cuda.set_rng_state_all(rng["cuda"][: torch.cuda.device_count()])
    return state
