"""README.md stays true: the files it names exist, its commands are known, every script has a manual."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_files_named_in_the_readme_exist():
    ours = re.sub(r"(?s)Give a benchmark the folder.*?\n\n\*\*As published", "", README)  # without others' layouts
    named = set(re.findall(r"`([\w./-]+\.(?:py|md|json|png|html))`|\]\(((?!http)[\w./-]+)\)", ours))
    named = {first or second for first, second in named}
    made_by_runs = {"card.md", "contact_sheet.png", "config.json", "curves.png", "samples.html", "report.html"}
    missing = [name for name in named - made_by_runs if not name.startswith("runs/") and not (ROOT / name).exists()]
    assert len(named) > 15 and not missing


def test_every_root_file_is_in_the_file_table():
    table = README[README.index("## The files") : README.index("## One ViRL step")]
    assert not [path.name for path in ROOT.glob("*.py") if f"`{path.name}`" not in table]


def test_make_targets_named_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:^ {4}|`)make ([\w-]+)", README, re.M))
    assert {"demo", "test"} <= targets and all(re.search(rf"^{target}:", makefile, re.M) for target in targets)


@pytest.mark.parametrize(
    "name",
    ["render.py", "reward.py", "synth.py", "train_sft.py", "train_virl.py", "eval.py"]
    + ["corpus/__main__.py", "report/__main__.py"],
)
def test_help_is_a_manual(name, script):
    status, shown = script(name, "--help")
    assert status == 0 and len(shown) > 200 and "--help" in shown


def test_flags_of_the_readme_are_known():
    """Every `python FILE ... --flag` of the README: FILE knows the flag (of any of its subcommands)."""
    for script, arguments in re.findall(r"python (\w+\.py)((?: [^\s`#]+)*)", README):
        source = (ROOT / script).read_text() + (ROOT / "train_sft.py").read_text() * script.startswith("train")
        for flag in re.findall(r"--([a-z][a-z-]*)", arguments):
            assert re.search(rf"\b{flag.replace('-', '_')}\b", source), (script, flag)


def test_commands_of_the_rooms_are_known():
    """Every `python -m ROOM COMMAND ... --flag` of the README and the Makefile: the room has the command, and says the
    flag."""
    texts = README + (ROOT / "Makefile").read_text()
    found = re.findall(r"(?:python|\$\(PY\)) -m (corpus|report) ([\w-]+)((?:[^`#\n]|\\\n)*)", texts)
    named = {f"{room} {command}" for room, command, _ in found}
    assert named >= {"corpus inspect", "corpus build", "corpus choose", "report audit", "report before-after"}
    for room, command, arguments in found:
        commands = runpy.run_path(str(ROOT / room / "__main__.py"))["COMMANDS"]
        fields = commands[command]().__dataclass_fields__
        for flag in re.findall(r" --([a-z][a-z-]*)", arguments):
            assert flag.replace("-", "_") in fields, (room, command, flag)
