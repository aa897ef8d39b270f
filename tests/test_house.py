"""How much one has to read: what each script reaches by imports, no circle among files, no arrow up."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# which import the root, never the reverse
ROOMS = ("corpus", "metrics", "answers", "report", "rewards", "benchmarks", "tests")
BELOW = ("sandbox", "languages", "native")  # which know nothing of models
GOALS = {"train_sft": (16, 3_000), "train_virl": (30, 6_900), "rollout": (8, 2_400), "reward": (12, 3_700)}
FILES = {  # module -> its file
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/*.py")])
    if path.parent.name not in ("tests", "benchmarks", "runs", "shared")
}


@cache
def arrows(module: str) -> set[str]:
    """Modules of ours that a module imports, within functions and for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import, which this test does not follow"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name in FILES} - {module}


@cache
def reached(module: str) -> frozenset[str]:
    seen, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += arrows(name)
    return frozenset(seen)


def lines(module: str) -> int:
    """Of a package's C as well."""
    path = FILES[module]
    sources = path.parent.glob("*.c") if path.name == "__init__.py" else ()
    return sum(len(file.read_text().splitlines()) for file in (path, *sources))


@pytest.mark.parametrize("script", GOALS)
def test_a_script_is_read_in_one_sitting(script):
    files, most = GOALS[script]
    own = reached(script)
    assert len(own) <= files and sum(map(lines, own)) <= most, sorted((lines(name), name) for name in own)


def test_no_circle():
    assert not [name for name in FILES if any(name in reached(other) for other in arrows(name))]


def test_arrows_point_down():
    """From the rooms to the root to what is below; eval.py and answer.py alone, of the root, know the rooms, and of the
    root nothing knows answer.py."""
    room_of = {name: name.split(".")[0] for name in FILES}
    root = [name for name in FILES if room_of[name] not in (*ROOMS, *BELOW) and name not in ("eval", "answer")]
    below = [name for name in FILES if room_of[name] in BELOW]
    up = [(name, other) for name in root for other in arrows(name) if room_of[other] in ROOMS]
    up += [(name, other) for name in below for other in arrows(name) if room_of[other] not in BELOW]
    assert len(root) > 20 and len(below) > 10 and not up
    assert not [name for name in FILES if "answer" in arrows(name)]


def test_the_measure_sees_an_import_within_a_function(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("def f():\n    from eval import main\n")
    monkeypatch.setitem(FILES, "a", tmp_path / "a.py")
    assert "eval" in arrows("a")
