"""What can be said about runs, models and the reward.

    python -m report page RUN                            # samples.html: what a run of ViRL answered in its newest step
    python -m report curves RUN                          # curves.png: every number of metrics.jsonl against the step
    python -m report before-after SFT=EVAL ViRL=EVAL --chosen-by SFT    # targets, and what each run drew of them
    python -m report audit DATA                          # the reward's report card: errors of known size, and hacks
    python -m report memory Qwen3-VL-8B --gpus 8         # what lives where in each phase, and what fits

`python -m report COMMAND --help` is a command's manual.
"""

import environment  # noqa: F401

from commands import run_command


def page() -> type:
    from report.answers import Page  # here and below: of a command only what it needs is loaded

    return Page


def curves() -> type:
    from report.curves import Curves

    return Curves


def before_after() -> type:
    from report.before_after import BeforeAfter

    return BeforeAfter


def audit() -> type:
    from report.audit import Audit

    return Audit


def memory() -> type:
    from report.memory import Memory

    return Memory


COMMANDS = {command.__name__.replace("_", "-"): command for command in (page, curves, before_after, audit, memory)}


def main() -> None:
    run_command("report", COMMANDS, __doc__)


if __name__ == "__main__":
    main()
