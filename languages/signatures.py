"""Functions that take what they once took: the tools of old_names.py and old_matplotlib.py."""

from __future__ import annotations

import functools
import inspect


def set_missing(owner, **values) -> None:
    """Set attributes that are not there."""
    for name, value in values.items():
        if name not in vars(owner):
            setattr(owner, name, value)


def without(function, *names: str):
    """`function`, for which keyword arguments of these names are dropped."""

    @functools.wraps(function)
    def call(*arguments, **options):
        return function(*arguments, **{name: value for name, value in options.items() if name not in names})

    return call


def renamed(function, **names: str):
    """`function`, whose keyword arguments had other names: old=new."""

    @functools.wraps(function)
    def call(*arguments, **options):
        return function(*arguments, **{names.get(name, name): value for name, value in options.items()})

    return call


def with_names(method, *names: str):
    """A method that is told by name today what it was told by place."""

    @functools.wraps(method)
    def call(self, *arguments, **options):
        return method(self, **dict(zip(names, arguments, strict=False)), **options)

    return call


def with_positions(function, *names: str):
    """What used to be given by place, in this order."""

    @functools.wraps(function)
    def call(*arguments, **options):
        if len(arguments) > 1 or (arguments and "data" in options):
            options = dict(zip(names, arguments, strict=False)) | options
            arguments = ()
        return function(*arguments, **options)

    return call


def by_place(function):
    """`function`, which is told by name today what it was told by place too. matplotlib made many parameters
    keyword-only, and kept their order: `Polygon(xy, True)` is `Polygon(xy, closed=True)`."""
    parameters = inspect.signature(function).parameters.values()
    named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    if "vert" in named and "orientation" in named:  # the one parameter that came between others
        named.remove("orientation")
    if not named or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return function
    count = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)

    @functools.wraps(function)
    def call(*arguments, **options):
        more = dict(zip(named, arguments[count:], strict=False)) if len(arguments) > count else {}
        return function(*arguments[:count], **more, **options)

    return call


def revalued(function, **values: dict):
    """`function`, for some of whose keyword arguments other values stood: name={old: new}. A new one of None is left
    out."""

    @functools.wraps(function)
    def call(*arguments, **options):
        for name in values.keys() & options.keys():
            old = options[name]
            if isinstance(old, (str, bool)) and old in values[name]:
                options[name] = values[name][old]
                if options[name] is None:
                    del options[name]
        return function(*arguments, **options)

    return call
