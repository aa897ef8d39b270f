"""What can be said about runs and models.

python -m report memory Qwen3-VL-8B --gpus 8         # what lives where in each phase, and what fits
"""

import sys

import tyro

from report.memory import Memory, table


def main() -> None:
    config = tyro.extras.subcommand_cli_from_dict({"memory": Memory}, description=__doc__)
    try:
        print(table(config.model, config.gpus, config.row_tokens, config.cards))
    except (OSError, ValueError) as error:
        sys.exit(f"report: {error}")


if __name__ == "__main__":
    main()
