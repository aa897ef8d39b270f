"""The command line of a side room: `python -m ROOM COMMAND ...`."""

import sys
from collections.abc import Callable

import tyro


def run_command(room: str, commands: dict[str, Callable[[], type]], manual: str) -> None:
    """Run the command that the command line names. commands: name -> what loads the class of its settings, whose
    instances do it when they are called; so of a room only what one command needs is loaded. Exit status 2 for a name
    that is no command, 1 for what goes wrong."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in commands:
        asked = name in ("", "-h", "--help")
        print(manual if asked else f"{room}: there is no command {name!r}; use one of {', '.join(commands)}")
        sys.exit(0 if asked else 2)
    try:
        tyro.cli(commands[name](), args=sys.argv[2:], prog=f"python -m {room} {name}")()
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"{room} {name}: {error}")
