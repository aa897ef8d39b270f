"""README.md and docs/ stay true: the files they name exist, their commands are known, every script has a manual."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
TEXTS = "\n".join(PAGES.values())
MADE_BY_RUNS = {
    "card.md",
    "contact_sheet.png",
    "config.json",
    "curves.png",
    "samples.html",
    "report.html",
    "adapter_config.json",
}


def test_the_readme_is_read_in_one_sitting():
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_that_are_named_exist(page):
    ours = re.sub(r"(?s)Give a benchmark the folder.*?\n\n\*\*As published", "", PAGES[page])  # without others' layouts
    ours = re.sub(r"(?s)```diff.*?```", "", ours)
    missing = [name for name in re.findall(r"\]\(((?!http)[\w./-]+)\)", ours) if not (page.parent / name).exists()]
    named = set(re.findall(r"`([\w./-]+\.(?:py|md|json|png|html))`", ours)) - MADE_BY_RUNS
    missing += [name for name in named if not name.startswith("runs/") and not (ROOT / name).exists()]
    assert not missing


def test_every_root_file_is_in_the_file_table():
    table = README[README.index("## The files") : README.index("## One ViRL step")]
    assert not [path.name for path in ROOT.glob("*.py") if f"`{path.name}`" not in table]


def test_make_targets_named_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:^ {4}|`)make ([\w-]+)", TEXTS, re.M))
    assert {"demo", "test"} <= targets and all(re.search(rf"^{target}:", makefile, re.M) for target in targets)


@pytest.mark.parametrize(
    "name",
    ["render.py", "reward.py", "synth.py", "train_sft.py", "train_virl.py", "eval.py", "answer.py"]
    + ["corpus/__main__.py", "report/__main__.py"],
)
def test_help_is_a_manual(name, script):
    status, shown = script(name, "--help")
    assert status == 0 and len(shown) > 200 and "--help" in shown


def test_flags_of_the_readme_are_known():
    """Every `python FILE ... --flag` of README.md and docs/: FILE knows the flag (of any of its subcommands)."""
    for script, arguments in re.findall(r"python (\w+\.py)((?: [^\s`#]+)*)", TEXTS):
        source = (ROOT / script).read_text() + (ROOT / "training.py").read_text() * script.startswith("train")
        for flag in re.findall(r"--([a-z][a-z-]*)", arguments):
            assert re.search(rf"\b{flag.replace('-', '_')}\b", source), (script, flag)


def test_commands_of_the_rooms_are_known():
    """Every `python -m ROOM COMMAND ... --flag` of README.md, docs/ and the Makefile: the room has the command, and
    says the flag."""
    texts = TEXTS + (ROOT / "Makefile").read_text()
    found = re.findall(r"(?:python|\$\(PY\)) -m (corpus|report) ([\w-]+)((?:[^`#\n]|\\\n)*)", texts)
    named = {f"{room} {command}" for room, command, _ in found}
    assert named >= {"corpus inspect", "corpus build", "corpus choose", "report audit", "report before-after"}
    for room, command, arguments in found:
        commands = runpy.run_path(str(ROOT / room / "__main__.py"))["COMMANDS"]
        fields = commands[command]().__dataclass_fields__
        for flag in re.findall(r" --([a-z][a-z-]*)", arguments):
            assert flag.replace("-", "_") in fields, (room, command, flag)
