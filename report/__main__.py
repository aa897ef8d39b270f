"""What can be said about runs, models and the reward.

    python -m report page RUN                            # samples.html: what a run of ViRL answered in its newest step
    python -m report curves RUN                          # curves.png: every number of metrics.jsonl against the step
    python -m report before-after SFT=EVAL ViRL=EVAL --chosen-by SFT    # targets, and what each run drew of them
    python -m report audit DATA                          # the reward's report card: errors of known size, and hacks
    python -m report memory Qwen3-VL-8B --gpus 8         # what lives where in each phase, and what fits

`python -m report COMMAND --help` is a command's manual.
"""

import environment  # noqa: F401

import sys

import tyro


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
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        asked = name in ("", "-h", "--help")
        print(__doc__ if asked else f"report: there is no command {name!r}; use one of {', '.join(COMMANDS)}")
        sys.exit(0 if asked else 2)
    try:
        tyro.cli(COMMANDS[name](), args=sys.argv[2:], prog=f"python -m report {name}")()
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"report {name}: {error}")


if __name__ == "__main__":
    main()
