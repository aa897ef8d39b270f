"""What a run is told: a preset and the flags, on --resume what its folder says and the flags. Both stages' settings are
checked here, before anything is loaded."""

import dataclasses
import importlib.util
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args, get_origin

import tyro

from checkpoint import checkpoint_to_resume, latest_checkpoint, step_of

COUNTS = (
    *("steps", "batch_size", "row_tokens", "max_tokens", "save_every", "prompts", "slots", "minibatches"),
    *("max_new_tokens", "max_prompt_tokens", "render_workers", "svg_side"),
)
RULES: list[tuple[Sequence[str], Callable, str]] = [  # fields of either stage, what they may be, and in words
    (COUNTS, lambda x: x >= 1, "has to be at least 1"),
    (("group",), lambda x: x >= 2, "has to be at least 2: an answer is compared with the others of its group"),
    (("warmup", "keep", "clip_high"), lambda x: x >= 0, "must not be negative"),
    (("weight_decay", "kl"), lambda x: 0 <= x < math.inf, "has to be 0 or more"),
    (("seed",), lambda x: 0 <= x < 2**63, "has to lie between 0 and 2^63"),
    (("lr", "render_timeout"), lambda x: 0 < x < math.inf, "has to be above 0"),
    (("grad_clip",), lambda x: x > 0, "has to be above 0; inf clips nothing"),
    (("temperature",), lambda x: 0 < x < math.inf, "has to be above 0: greedy answers to a picture are all the same"),
    (("refine", "alignment_weight", "clip_low", "max_rejects"), lambda x: 0 <= x <= 1, "has to lie between 0 and 1"),
    (("dual_clip",), lambda x: x == 0 or x > 1, "has to be above 1, or 0 for no bound"),
    (("importance_cap",), lambda x: x == 0 or x >= 1, "has to be at least 1, or 0 for no correction"),
    (("device",), lambda x: re.fullmatch(r"cpu|cuda(:\d+)?", x), "is neither cpu nor cuda"),
    (("render_python",), shutil.which, "is no program that runs"),
    (("log_to",), lambda x: x == "files" or _installed(x), "is not installed here: pip install it, or use files"),
]

FIXED = {  # what a checkpoint decides
    "model": "the weights are in the run's checkpoints. If the folder was moved, say so in config.json",
    "optimizer": "the checkpoint holds the state of the other one",
    "freeze": "the checkpoint holds the optimizer's state of other weights",
}
STAGES = {"batch_size": "train_sft.py", "prompts": "train_virl.py"}  # a setting that only this script has


def parse_config(presets: dict, argv: Sequence[str] | None = None):
    """The configuration from a preset and the flags; with --resume, the one saved in the run's folder with the flags
    over it. What changes is said on the console.

    Raises FileNotFoundError where there is nothing to resume, OSError where the newest checkpoint is damaged, and
    ValueError where a run would be overwritten, a flag cannot change a run in progress, or a setting cannot work. Ends
    the script where all steps are done.
    """
    config = tyro.extras.overridable_config_cli(presets, args=argv)
    newest = (checkpoint_to_resume if config.resume else latest_checkpoint)(Path(config.out))
    if config.resume:
        config = _resumed(presets, argv, config, newest)
    elif newest:
        raise ValueError(f"{config.out} already holds a run; use --resume to go on, or another --out.")
    check_config(config)
    if newest and config.steps == step_of(newest):
        say(f"All {config.steps} steps are done: {newest}. A larger --steps goes on.")
        sys.exit()
    if config.warmup > config.steps:
        say(f"--warmup {config.warmup} is longer than the run of {config.steps} steps: --lr is never reached.")
    return config


def _resumed(presets: dict, argv: Sequence[str] | None, config, newest: Path | None):
    """The saved configuration with the flags of now over it."""
    path = Path(config.out) / "config.json"
    if not path.exists() and newest is None:
        raise FileNotFoundError(f"There is no run to resume in {config.out}; leave out --resume to start one.")
    if not path.exists():
        say(f"{path} is gone: the run goes on with this preset and these flags.")
        return config
    saved = dataclasses.replace(read_config(path, type(config)), out=config.out, resume=True)
    now = tyro.extras.overridable_config_cli({name: (about, saved) for name, (about, _) in presets.items()}, args=argv)
    names = [field.name for field in dataclasses.fields(saved)]
    pairs = {name: (getattr(saved, name), getattr(now, name)) for name in names}
    changed = {name: (before, wanted) for name, (before, wanted) in pairs.items() if _bare(before) != _bare(wanted)}
    if newest:
        for name in [name for name in FIXED if name in changed]:
            before, wanted = changed[name]
            raise ValueError(f"--{name} {wanted} cannot change this run ({before}): {FIXED[name]}.")
        if now.steps < step_of(newest):
            raise ValueError(f"--steps {now.steps}: {newest} has taken {step_of(newest)} already; give more.")
    if changed:
        flags = (f"{flag(name)} {wanted} (was {before})" for name, (before, wanted) in changed.items())
        say(f"Resumed with {', '.join(flags)}.")
    return now


def read_config(path: Path, kind: type):
    """A configuration of this kind from a config.json, fields that are not there at their defaults. Raises ValueError,
    naming what is wrong: no JSON, the other stage's, an unknown setting, a value of the wrong type."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not whole ({error}). Mend it, or remove it: --resume then goes on with the preset "
            "and the flags, so give all that the run was started with."
        ) from None
    known = {field.name: field.type for field in dataclasses.fields(kind)}
    if not isinstance(saved, dict):
        raise ValueError(f"{path} holds {saved!r:.50}, not a configuration.")
    for name, script in STAGES.items():
        if name in saved and name not in known:
            raise ValueError(f"{path.parent} holds a run of {script}: resume it with that, or give another --out.")
    for name, value in saved.items():
        if name not in known:
            raise ValueError(f"{path} has a setting {name!r} that is not known here; remove it, or correct its name.")
        if not _fits(value, known[name]):
            raise ValueError(f"{path}: {name!r} cannot be {value!r:.50}; correct it.")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()})


def _bare(value):
    """A folder's name without the slash that a shell completes it with."""
    return value.rstrip("/") if isinstance(value, str) else value


def _fits(value, kind) -> bool:
    """Whether a value of a JSON file is one of a field's type. Whole numbers are numbers, true and false are not."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:  # JSON's lists
        return isinstance(value, list) and all(_fits(item, get_args(kind)[0]) for item in value)
    kinds = get_args(kind) or (kind,)
    return type(value) in kinds or (float in kinds and type(value) is int)


def check_config(config) -> None:
    """Raises ValueError with every setting that cannot work, alone or with the others."""
    texts = [name for name in ("model", "data", "out", "encoder") if getattr(config, name, None) == ""]
    wrong = [f"--{name} is missing; `--help` says what it takes" for name in texts]
    for names, works, words in RULES:
        for name in names:
            value = getattr(config, name, None)  # None: it is the other stage's, or left open
            if value is not None and not works(value):
                wrong.append(f"{flag(name)} {value} {words}")
    wrong += _combinations(config)
    if wrong:
        raise ValueError("; ".join(wrong) + ".")


def _combinations(config) -> list[str]:
    """What is wrong with settings that each could work. One process of torchrun's gets its share of the pictures."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    name = "prompts" if hasattr(config, "prompts") else "batch_size"
    pictures = getattr(config, name)
    if 1 <= pictures < processes:
        return [f"{flag(name)} {pictures} leaves some of {processes} processes without work"]
    if name == "batch_size":
        return []
    wrong = []
    if config.minibatches > pictures // processes:
        wrong.append(
            f"--minibatches {config.minibatches} are more than the pictures of a process, {pictures // processes}"
        )
    if config.minibatches == 1 and config.loss != "clipped":
        wrong.append(
            f"--loss {config.loss} wants several --minibatches: with one every ratio is 1, and it does nothing"
        )
    if config.minibatches > 1 and config.importance_cap:
        wrong.append(
            "--importance-cap does nothing with several --minibatches: the ratio corrects for the sampler already"
        )
    return wrong


def _installed(package: str) -> bool:
    """A folder of that name, as wandb leaves where it ran, is none."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def say(text: str) -> None:
    """To the console, once: of several processes the first one speaks."""
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)
