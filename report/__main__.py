"""What can be said about runs and models.

python -m report memory Qwen3-VL-8B --gpus 8         # what lives where in each phase, and what fits
python -m report curves RUN                          # RUN/curves.png, from RUN/metrics.jsonl
python -m report page RUN                            # RUN/samples.html, from RUN/samples
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from report.memory import Memory, table


@dataclass
class Curves:
    """Draw the curves of a training run."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""


@dataclass
class Page:
    """Show the newest answers of a ViRL run."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""


def main() -> None:
    commands = {"memory": Memory, "curves": Curves, "page": Page}
    config = tyro.extras.subcommand_cli_from_dict(commands, description=__doc__)
    try:
        if isinstance(config, Memory):
            print(table(config.model, config.gpus, config.row_tokens, config.cards))
        elif isinstance(config, Curves):
            from report.curves import plot_curves

            plot_curves(config.run / "metrics.jsonl", config.run / "curves.png")
        else:
            from dataclasses import replace

            from metrics.pixels import ssim
            from records import read_records
            from report.answers import write_report

            records = (
                replace(r, ssim=ssim(r.sample.image, r.rendering.image)) for r in read_records(config.run / "samples")
            )
            write_report(config.run / "samples.html", {"newest step": records}, title=f"{config.run.name}: samples")
    except (OSError, ValueError) as error:
        sys.exit(f"report: {error}")


if __name__ == "__main__":
    main()
