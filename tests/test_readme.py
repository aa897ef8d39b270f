"""README.md stays true: the files it names exist, its commands are known, every script has a manual."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_files_named_in_the_readme_exist():
    ours = re.sub(r"(?s)Give a benchmark the folder.*?\n\nChartMimic's facts", "", README)  # without others' layouts
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
    "name", ["render.py", "reward.py", "synth.py", "data.py", "model.py", "train_sft.py", "train_virl.py", "eval.py"]
)
def test_help_is_a_manual(name, script):
    status, shown = script(name, "--help")
    assert status == 0 and len(shown) > 200 and "--help" in shown


def test_flags_of_the_readme_are_known():
    """Every `python FILE ... --flag` of the README: FILE knows the flag (of any of its subcommands)."""
    for script, arguments in re.findall(r"python (\w+\.py)((?: [^\s`#]+)*)", README):
        source = (ROOT / script).read_text() + (ROOT / "train_sft.py").read_text() * script.startswith("train")
        parts = ("build.py", "choose.py") if script == "data.py" else ()
        source += "".join((ROOT / "corpus" / part).read_text() for part in parts)
        for flag in re.findall(r"--([a-z][a-z-]*)", arguments):
            assert re.search(rf"\b{flag.replace('-', '_')}\b", source), (script, flag)
