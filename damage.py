"""Which checkpoint `--resume` goes on from: the newest one, unless it is damaged, which is then said. run.py loads this
by name where a run is resumed."""

import json
import shlex
from pathlib import Path

import torch
from safetensors import safe_open

import releases
from checkpoint import checkpoints


def checkpoint_to_resume(run: Path) -> Path | None:
    """The newest checkpoint of a run, or None. Where it is damaged an OSError says which older one serves and how to
    take it: steps are not lost without a word."""
    damaged, sound = [], None
    for checkpoint in reversed(checkpoints(run)):
        if (what := damage(checkpoint)) is None:
            sound = checkpoint
            break
        damaged.append((checkpoint, what))
    if not damaged:
        return sound
    remedy = "No older one is whole: start again with another --out."
    if sound:
        moves = (shlex.join(["mv", str(path), str(path.with_name(f"damaged-{path.name}"))]) for path, _ in damaged)
        remedy = f"{sound.name} is whole; to go on from there, --resume after: {' && '.join(moves)}"
    raise OSError(f"{damaged[0][0]} is damaged ({damaged[0][1]}). {remedy}")


def damage(checkpoint: Path) -> str | None:
    """The file that keeps a checkpoint from being loaded, and why, as far as headers and lengths tell; None if none."""
    try:
        adapter = releases.is_adapter(checkpoint)
        settings = checkpoint / (releases.ADAPTER[0] if adapter else "config.json")
        for file in sorted({settings, *checkpoint.glob("*.json")}):
            json.loads(file.read_text(encoding="utf-8"))
        for file in [checkpoint / releases.ADAPTER[1]] if adapter else releases.weight_files(checkpoint):
            safe_open(file, "pt")
        file = checkpoint / "trainer.pt"
        torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # json, safetensors, torch and its pickle have one each for a file that is cut off
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"{file.name}: {why.splitlines()[0].split('. ')[0]}"
    return None
