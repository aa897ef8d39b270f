"""Scripts in processes that are forked from one which has imported what takes a new interpreter three seconds: torch,
transformers, tyro. Nothing of ours is loaded before the fork."""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

LOADED = """torch torch.distributed.fsdp transformers.models.qwen2_5_vl.modeling_qwen2_5_vl
    transformers.models.qwen3_vl.modeling_qwen3_vl transformers.models.auto.modeling_auto tyro pyarrow.parquet"""
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(LOADED.split())


class Forked:
    """The part of subprocess.Popen that the tests use. Output is text."""

    def __init__(self, command: list[str], env: dict, cwd: Path):
        """command: a script and its arguments."""
        self.printed = [tempfile.NamedTemporaryFile("r", encoding="utf-8") for _ in range(2)]  # noqa: SIM115
        names = [file.name for file in self.printed]
        self.process = FORKS.Process(target=_run_script, args=(command, env, cwd, *names))
        self.process.start()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()

    def communicate(self, timeout: float | None = None) -> list[str]:
        """What was printed, and what was complained. Raises subprocess.TimeoutExpired."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked script", timeout)
        return [file.read() for file in self.printed]


def _run_script(command: list[str], env: dict, cwd: Path, printed: str, complained: str) -> None:
    """As the interpreter runs a script, to the handlers at its end."""
    for descriptor, name in enumerate((os.devnull, printed, complained)):
        file = os.open(name, os.O_RDWR)
        os.dup2(file, descriptor)
        os.close(file)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv, sys.path[0] = command, str(Path(command[0]).parent)
    try:
        runpy.run_path(command[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
