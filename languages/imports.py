"""Something to be done to a module as soon as a program imports it, and not before: most programs never do."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import sys
import types
from collections.abc import Callable

WAITING: dict[str, list[Callable]] = {}  # module's name -> what is done to it


def when_imported(name: str, change: Callable) -> None:
    """Call `change(module)` once the module is there: now, or right after its import. A change that fails is left out,
    as the module may be of another version."""
    if name in sys.modules:
        apply(change, sys.modules[name])
    else:
        WAITING.setdefault(name, []).append(change)


def apply(change: Callable, module) -> None:
    with contextlib.suppress(AttributeError, ImportError, KeyError, TypeError):
        change(module)


class Finder(importlib.abc.MetaPathFinder):
    """Finds what WAITING names like everybody else, and lets the changes follow the module's own code."""

    def find_spec(self, name, path=None, target=None):
        if name not in WAITING:
            return None
        changes = WAITING.pop(name)
        spec = importlib.util.find_spec(name)
        if spec and spec.loader:
            run = spec.loader.exec_module

            def exec_module(module) -> None:
                run(module)
                for change in changes:
                    apply(change, module)

            spec.loader.exec_module = exec_module
        return spec


def install() -> None:
    sys.meta_path.insert(0, Finder())


class LateModule(types.ModuleType):
    """A module under its former name; what it holds is looked up in those of today, when it is asked for."""

    def __init__(self, name: str, today: tuple[str, ...]):
        super().__init__(name)
        self.__path__ = []  # it may have parts
        self.today = today

    def __getattr__(self, name: str):
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        modules = [importlib.import_module(today) for today in self.today]
        if name == "__all__":
            return [public for module in modules for public in vars(module) if not public.startswith("_")]
        return getattr(next((module for module in modules if hasattr(module, name)), modules[0]), name)


def keep_names(moved: dict[str, tuple[str, ...]]) -> None:
    """Modules' former names -> those that hold today what they held."""
    for name, today in moved.items():
        sys.modules.setdefault(name, LateModule(name, today))
