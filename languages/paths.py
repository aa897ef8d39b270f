"""Absolute paths of other machines: what a program makes at `/home/user/out` lies in its job's own folder.

Only names change here, for the program's comfort; what may be read and written is the sandbox's business.
"""

from __future__ import annotations

import builtins
import io
import os
import shutil
import tempfile
from pathlib import Path

from languages.imports import when_imported

FOLDER = [""]  # the job's; in the fork server there is none, and paths are what they are
WORK = ("home", "user", "work")  # where in it a program starts: `../results` is the program's too


def set_home(folder: str) -> None:
    """Home and temporary files are in `folder`."""
    os.environ.update(HOME=folder, TMPDIR=folder, MPLCONFIGDIR=folder, USER="user", LOGNAME="user")
    tempfile.tempdir = folder


def move_into(folder: str) -> None:
    """From now on, absolute paths that do not exist here are beneath `folder`, in which a new one is the current."""
    os.chdir(folder)
    for name in WORK:
        os.mkdir(name)
        os.chdir(name)
    FOLDER[0] = folder


def install() -> None:
    """Make what opens and lists files look at FOLDER first. Called once, in the fork server."""
    lies_there, make_folder, open_file = os.path.lexists, os.mkdir, io.open

    def moved(path):
        name = os.fspath(path) if isinstance(path, os.PathLike) else path
        folder = FOLDER[0]
        if not folder or not isinstance(name, str) or not os.path.isabs(name) or name.startswith(folder):
            return path
        return path if lies_there(name) else folder + os.path.normpath(name)

    def make_parents(path) -> None:
        for parent in reversed(Path(path).parents):
            if parent.is_relative_to(FOLDER[0]) and not lies_there(parent):
                make_folder(parent)

    def opened(file, mode="r", *arguments, **options):
        place, reads = moved(file), mode.startswith("r")
        if place is not file and not reads:
            make_parents(place)
        elif place is not file and not lies_there(place):
            place = file  # the error names what the program named
        return open_file(place, mode, *arguments, **options)

    def at_made(function):
        """`function` of a path, whose folders are made where it is another machine's."""

        def call(path, *arguments, **options):
            place = moved(path)
            if place is not path:
                make_parents(place)
            return function(place, *arguments, **options)

        return call

    builtins.open = io.open = opened
    when_imported("sqlite3", lambda module: setattr(module, "connect", at_made(module.connect)))
    when_imported("numpy.lib._datasource", lambda module: module._file_openers._file_openers.update({None: opened}))
    os.mkdir = at_made(make_folder)
    for name in ("stat", "listdir", "scandir", "remove", "unlink", "chdir", "rmdir", "access"):
        setattr(os, name, at_moved(getattr(os, name), moved))
    for name in ("rename", "replace"):
        setattr(os, name, between_moved(getattr(os, name), moved))
    os.path.lexists = at_moved(lies_there, moved)
    shutil.copymode = shutil.copystat = lambda *_, **__: None  # rights and times are none of a program's business


def between_moved(function, moved):
    return lambda source, target, **options: function(moved(source), moved(target), **options)


def at_moved(function, moved):
    return lambda path=".", *arguments, **options: function(moved(path), *arguments, **options)
