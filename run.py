"""The folder of a training run: what it was told to do, what it measured, and where a person looks first."""

import contextlib
import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import tyro
from tqdm import tqdm

from checkpoint import latest_checkpoint
from processes import process_number
from report.curves import plot_curves


def progress_bar(name: str, start: int, steps: int) -> tqdm:
    hidden = process_number()[0] > 0
    return tqdm(range(start, steps), name, initial=start, total=steps, unit="step", smoothing=0.05, disable=hidden)


@contextlib.contextmanager
def timer(times: dict, name: str):
    """Adds the seconds of a block to times[name]."""
    start = time.perf_counter()
    yield
    times[name] = times.get(name, 0.0) + time.perf_counter() - start


@contextlib.contextmanager
def half_the_threads():
    """torch on half of its CPU threads meanwhile: the renderer has the other cores. Threads that wait for one another
    at every operation all stand still as soon as one of them waits for a core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run_script(main: Callable[[], None], presets: dict) -> None:
    """A stage's `main`, ended by what went wrong in one sentence; after Ctrl-C by the command that goes on, and with
    exit status 130."""
    name = Path(sys.argv[0]).name
    try:
        try:
            return main()
        except (OSError, ValueError, RuntimeError) as error:  # of several processes also: another has stopped
            sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        pass  # with it go the frames that hold the progress bar, which prints itself once more
    if os.environ.get("RANK", "0") == "0":
        print(f"\n{name}: stopped by Ctrl-C; {how_to_go_on(presets)}", file=sys.stderr, flush=True)
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


def replace_file(path: Path, text: str) -> None:
    """Whatever ends this process, the file holds either what it held or all of the text."""
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(text)
    os.replace(unfinished, path)


class Run:
    """runs/NAME: config.json, metrics.jsonl (one JSON object per step), curves.png, samples.html, checkpoints/.
    Of several processes the first one writes."""

    def __init__(self, config):
        self.config, self.folder, self.log_to, self.writer = config, Path(config.out), config.log_to, None
        self.metrics_path, self.writes = self.folder / "metrics.jsonl", process_number()[0] == 0
        self.plotted = time.monotonic()
        if not self.writes:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"--out {self.folder} cannot be a folder ({error.strerror}); give another.") from error
        if config.log_to == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(self.folder)
        elif config.log_to == "wandb":
            import wandb

            try:
                self.writer = wandb.init(project="nanovinci", name=self.folder.name, config=dataclasses.asdict(config))
            except wandb.Error as error:  # no key, no connection
                raise ValueError(f"--log-to wandb does not start: {error}") from error

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
        if self.log_to == "tensorboard":
            for key, value in metrics.items():
                self.writer.add_scalar(key, value, metrics["step"])
        elif self.log_to == "wandb":
            self.writer.log(metrics, step=metrics["step"])

    def plot(self, ended: bool) -> None:
        """The curves, which take seconds to draw: at most once a minute, and in the end."""
        if self.writes and (ended or time.monotonic() - self.plotted > 60):
            plot_curves(self.metrics_path, self.folder / "curves.png")
            self.plotted = time.monotonic()
