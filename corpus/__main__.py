"""Data sets: what is in one, and a corpus made of several.

    python -m corpus inspect PATH [--contact-sheet OUT.png]   # what is in it, and what is wrong with which row
    python -m corpus draw MANIFEST_FOLDER --out FOLDER        # pictures of programs, once: corpus/draw.py
    python -m corpus words PATH --ocr tesseract               # what pictures without programs say: corpus/words.py
    python -m corpus build PATH.. --out CORPUS                # filter, draw, draft, balance: corpus/build.py
    python -m corpus real --out runs/real                     # a corpus out of packages: corpus/real.py
    python -m corpus choose FOLDER_OF_EVAL --out rl.parquet   # RL prompts by sampled reward: corpus/choose.py

PATH is what data.load reads: data.py says which formats. `python -m corpus COMMAND --help` is a command's manual.
"""

from commands import run_command


def build() -> type:
    from corpus.build import Build  # here and below: of a command only what it needs is loaded

    return Build


def choose() -> type:
    from corpus.choose import Choose

    return Choose


def draw() -> type:
    from corpus.draw import Draw

    return Draw


def inspect() -> type:
    from corpus.inspection import Inspect

    return Inspect


def real() -> type:
    from corpus.real import Real

    return Real


def words() -> type:
    from corpus.words import Words

    return Words


COMMANDS = {command.__name__: command for command in (inspect, draw, words, build, real, choose)}


def main() -> None:
    run_command("corpus", COMMANDS, __doc__)


if __name__ == "__main__":
    main()
