"""The folder of a training run: what it was told to do, what it measured, and where a person looks first."""

import contextlib
import dataclasses
import json
import os
import time
from pathlib import Path

import torch
from tqdm import tqdm

from model import process_number
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


class Run:
    """runs/NAME: config.json, metrics.jsonl (one JSON object per step), curves.png, samples.html, checkpoints/.
    Of several processes the first one writes."""

    def __init__(self, config):
        self.folder, self.log_to, self.writer = Path(config.out), config.log_to, None
        self.metrics_path, self.writes = self.folder / "metrics.jsonl", process_number()[0] == 0
        self.plotted = time.monotonic()
        if not self.writes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
        if config.log_to == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(self.folder)
        elif config.log_to == "wandb":
            import wandb

            self.writer = wandb.init(project="nanovinci", name=self.folder.name, config=dataclasses.asdict(config))

    def start_at(self, step: int) -> None:
        """Forget metrics of steps that are about to be taken again."""
        if not self.writes:
            return
        rows = self.metrics_path.read_text().splitlines() if self.metrics_path.exists() and step else []
        kept, unfinished = [], self.metrics_path.with_suffix(".tmp")
        for row in rows:
            with contextlib.suppress(ValueError):  # a line that a kill or a full disk cut off
                kept += [row] if json.loads(row)["step"] < step else []
        unfinished.write_text("".join(row + "\n" for row in kept))
        os.replace(unfinished, self.metrics_path)

    def log(self, metrics: dict) -> None:
        if not self.writes:
            return
        metrics = {key: round(value, 6) if isinstance(value, float) else value for key, value in metrics.items()}
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
