"""A training run: what it is told (a preset and flags; on --resume what its folder says), its folder, and its end."""

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import math
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TextIO, get_args, get_origin

import tyro

from checkpoint import latest_checkpoint, step_of
from processes import rank_and_size

# ------------------------------------------------------------------------------------------------------ what it is told

Rule = tuple[Sequence[str], Callable, str]  # names of settings, what their values may be, and that in words
COMMON_RULES: list[Rule] = [
    (("steps", "row_tokens", "save_every", "eval_every", "eval_tokens"), lambda x: x >= 1, "has to be at least 1"),
    (("lora", "lora_alpha"), lambda x: x >= 1, "has to be at least 1"),
    (("warmup", "keep"), lambda x: x >= 0, "must not be negative"),
    (("weight_decay",), lambda x: 0 <= x < math.inf, "has to be 0 or more"),
    (("seed",), lambda x: 0 <= x < 2**63, "has to lie between 0 and 2^63"),
    (("lr",), lambda x: 0 < x < math.inf, "has to be above 0"),
    (("grad_clip",), lambda x: x > 0, "has to be above 0; inf clips nothing"),
    (("max_rejects",), lambda x: 0 <= x <= 1, "has to lie between 0 and 1"),
    (("device",), lambda x: re.fullmatch(r"cpu|cuda(:\d+)?", x), "is neither cpu nor cuda"),
    (("log_to",), lambda x: x == "files" or _installed(x), "is not installed here: pip install it, or use files"),
]
FIXED = {  # what a checkpoint decides
    "model": "the weights are in the run's checkpoints. If the folder was moved, say so in config.json",
    "optimizer": "the checkpoint holds the state of the other one",
    "freeze": "the checkpoint holds the optimizer's state of other weights",
} | dict.fromkeys(("lora", "lora_alpha", "lora_targets"), "the checkpoint holds what was trained")
STAGES = {"batch_size": "train_sft.py", "prompts": "train_virl.py"}  # a setting that only this script has


def parse_config(presets: dict, argv: Sequence[str] | None = None):
    """The configuration from a preset and the flags; with --resume, the one saved in the run's folder with the flags
    over it. What changes is said on the console.

    Raises FileNotFoundError where there is nothing to resume, OSError where the newest checkpoint is damaged, and
    ValueError where a run would be overwritten, a flag cannot change a run in progress, or a setting cannot work. Ends
    the script where all steps are done.
    """
    config = tyro.extras.overridable_config_cli(presets, args=argv)
    find = importlib.import_module("damage").checkpoint_to_resume if config.resume else latest_checkpoint
    newest = find(Path(config.out))
    if config.resume:
        config = _resumed(presets, argv, config, newest)
    elif newest:
        raise ValueError(f"{config.out} already holds a run; use --resume to go on, or another --out.")
    check_config(config)
    if newest and config.steps == step_of(newest):
        print_once(f"All {config.steps} steps are done: {newest}. A larger --steps goes on.")
        sys.exit()
    if config.warmup > config.steps:
        print_once(f"--warmup {config.warmup} is longer than the run of {config.steps} steps: --lr is never reached.")
    return config


def _resumed(presets: dict, argv: Sequence[str] | None, config, newest: Path | None):
    """The saved configuration with the flags of now over it."""
    path = Path(config.out) / "config.json"
    if not path.exists() and newest is None:
        raise FileNotFoundError(f"There is no run to resume in {config.out}; leave out --resume to start one.")
    if not path.exists():
        print_once(f"{path} is gone: the run goes on with this preset and these flags.")
        return config
    saved = dataclasses.replace(read_config(path, type(config)), out=config.out, resume=True)
    now = tyro.extras.overridable_config_cli({name: (about, saved) for name, (about, _) in presets.items()}, args=argv)
    before, wanted = dataclasses.asdict(saved), dataclasses.asdict(now)
    bare = lambda value: str(value).rstrip("/")  # with which a shell completes a folder's name  # noqa: E731
    changed = [name for name in before if bare(before[name]) != bare(wanted[name])]
    for name in FIXED if newest else ():
        if name in changed:
            raise ValueError(f"{flag(name)} {wanted[name]} cannot change this run ({before[name]}): {FIXED[name]}.")
    if newest and now.steps < step_of(newest):
        raise ValueError(f"--steps {now.steps}: {newest} has taken {step_of(newest)} already; give more.")
    if changed:
        flags = (f"{flag(name)} {wanted[name]} (was {before[name]})" for name in changed)
        print_once(f"Resumed with {', '.join(flags)}.")
    return now


def read_config(path: Path, kind: type):
    """A configuration of this kind from a config.json, fields that are not there at their defaults. Raises ValueError,
    naming what is wrong: no JSON, the other stage's, an unknown setting, a value of the wrong type."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        remedy = "Mend it, or remove it and give all flags again that the run was started with"
        raise ValueError(f"{path} is not whole ({error}). {remedy}.") from None
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
    for names, works, words in [*COMMON_RULES, *config.rules]:
        for name in names:
            value = getattr(config, name)
            if value is not None and not works(value):  # None: left open
                wrong.append(f"{flag(name)} {value} {words}")
    pictures, processes = getattr(config, config.batch_setting), int(os.environ.get("WORLD_SIZE", 1))
    if 1 <= pictures < processes:
        wrong.append(f"{flag(config.batch_setting)} {pictures} leaves some of {processes} processes without work")
    else:
        wrong += config.conflicts()
    if wrong:
        raise ValueError("; ".join(wrong) + ".")


def _installed(package: str) -> bool:
    """Not by the empty folder of that name that wandb leaves where it ran."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def print_once(text: str, to: TextIO | None = None) -> None:
    """To the console, once: of several processes the first one speaks."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=to, flush=True)


# ----------------------------------------------------------------------------------------------------------- its folder


def replace_file(path: Path, text: str) -> None:
    """Whatever ends this process, the file holds either what it held or all of the text."""
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(text)
    os.replace(unfinished, path)


class Run:
    """runs/NAME: config.json, metrics.jsonl (a JSON object per step, and per evaluation), checkpoints/, and the pages
    curves.png and samples.html, which other processes draw. Of several processes the first one writes."""

    def __init__(self, config):
        self.config, self.folder, self.tracker = config, Path(config.out), None
        self.metrics_path, self.writes = self.folder / "metrics.jsonl", rank_and_size()[0] == 0
        self.drawing: list[subprocess.Popen] = []
        self.drawn = time.monotonic()  # when pages were last asked for
        if not self.writes:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"--out {self.folder} cannot be a folder ({error.strerror}); give another.") from error
        if config.log_to != "files":
            self.tracker = getattr(importlib.import_module("report.trackers"), config.log_to)(config, self.folder)

    def start_at(self, step: int) -> None:
        """Write config.json, now that everything is loaded that it names, and forget metrics of steps that are about to
        be taken again."""
        if not self.writes:
            return
        replace_file(self.folder / "config.json", json.dumps(dataclasses.asdict(self.config), indent=2) + "\n")
        rows = self.metrics_path.read_text().splitlines() if self.metrics_path.exists() and step else []
        kept = []
        for row in rows:
            with contextlib.suppress(ValueError):  # a line that a kill or a full disk cut off
                kept += [row] if json.loads(row)["step"] < step else []
        replace_file(self.metrics_path, "".join(row + "\n" for row in kept))

    def log(self, metrics: dict) -> None:
        if not self.writes:
            return
        metrics = {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in metrics.items()}
        with self.metrics_path.open("a") as file:
            file.write(json.dumps(metrics) + "\n")
        if self.tracker:
            self.tracker(metrics)

    def draw(self, *pages: str, ended: bool = False) -> None:
        """Have the run's pages drawn from what lies in its folder, each by a process of its own (`python -m report PAGE
        RUN`): while one is at work, and for a minute after it began, no other is started. Only a run that has ended
        waits for them; one that fails has said why, and ends nothing."""
        if not self.writes or not (ended or time.monotonic() - self.drawn > 60 and not self.is_drawing()):
            return
        self.wait_for_pages()
        command = [sys.executable, "-m", "report"]
        options = {"cwd": Path(__file__).parent, "stdout": subprocess.DEVNULL}
        options["start_new_session"] = True  # Ctrl-C is for the training
        folder = str(self.folder.absolute())
        self.drawing = [subprocess.Popen([*command, page, folder], **options) for page in pages]
        self.drawn = time.monotonic()
        if ended:
            self.wait_for_pages()

    def is_drawing(self) -> bool:
        return any(process.poll() is None for process in self.drawing)

    def wait_for_pages(self) -> None:
        for process in self.drawing:
            process.wait()


# -------------------------------------------------------------------------------------------------------------- its end


def run_script(main: Callable[[], None], presets: dict) -> None:
    """A stage's `main`, ended by what went wrong in one sentence; after Ctrl-C by the command that goes on, and with
    exit status 130."""
    name = Path(sys.argv[0]).name
    try:
        return main()
    except (OSError, ValueError, RuntimeError) as error:  # of several processes also: another has stopped
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:  # with it go the frames that hold the progress bar, which prints itself once more
        sys.unraisablehook = lambda unraisable: None  # or, where Ctrl-C met it half made, complains
    print_once(f"\n{name}: stopped by Ctrl-C; {how_to_go_on(presets)}", sys.stderr)
    sys.exit(130)


def how_to_go_on(presets: dict) -> str:
    """What is saved of the run that this process was told to do, and the command that takes it up again."""
    out = tyro.extras.overridable_config_cli(presets).out
    newest = latest_checkpoint(Path(out))
    again = ["--resume"] if newest and "--resume" not in sys.argv else []  # flags that are saved already change nothing
    saved = f"{newest} is saved. To go on" if newest else "nothing is saved yet. To start again"
    launcher, machines = [sys.executable], int(os.environ.get("GROUP_WORLD_SIZE", 1))
    if "LOCAL_WORLD_SIZE" in os.environ:
        launcher += ["-m", "torch.distributed.run", "--nproc-per-node", os.environ["LOCAL_WORLD_SIZE"]]
    there = f" on each of the {machines} machines, with torchrun's options" if machines > 1 else ""
    return f"{saved}{there}: {shlex.join([*launcher, *sys.argv, *again])}"
