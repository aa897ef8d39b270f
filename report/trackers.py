"""Where metrics go besides metrics.jsonl: `--log-to tensorboard`, `--log-to wandb`. run.py loads this by name where one
of them is asked for; both are libraries of their own, to be installed."""

import dataclasses
from collections.abc import Callable
from pathlib import Path


def tensorboard(config, folder: Path) -> Callable[[dict], None]:
    """What a step's metrics are given to, whose numbers lie in the run's folder."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder)

    def log(metrics: dict) -> None:
        for key, value in metrics.items():
            writer.add_scalar(key, value, metrics["step"])

    return log


def wandb(config, folder: Path) -> Callable[[dict], None]:
    """The same for a run of the project nanovinci, named like the folder. Raises ValueError where it does not start."""
    import wandb

    try:
        run = wandb.init(project="nanovinci", name=folder.name, config=dataclasses.asdict(config))
    except wandb.Error as error:  # no key, no connection
        raise ValueError(f"--log-to wandb does not start: {error}") from error
    return lambda metrics: run.log(metrics, step=metrics["step"])
