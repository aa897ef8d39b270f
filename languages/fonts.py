"""Which font files a program's font names mean, for matplotlib and Pillow; for svg and pages fontconfig says the same.

Arial and its like become the Liberation family of the same widths, as on every Linux desktop. Chinese, Japanese and
Korean text is drawn with WenQuanYi Micro Hei wherever the chosen font has no such letters, whatever it is called.
"""

from __future__ import annotations

import dataclasses
import functools
import mmap
import os
import re
from pathlib import Path

# families that stand for others, and how the files of others begin
SANS, SERIF, MONO, EAST = "Liberation Sans", "Liberation Serif", "Liberation Mono", "WenQuanYi Micro Hei"
FAMILIES = {
    SANS: ("Arial", "Helvetica", "Helvetica Neue", "Nimbus Sans", "Arimo", "Albany"),
    SERIF: ("Times New Roman", "Times", "Nimbus Roman", "Tinos", "Thorndale"),
    MONO: ("Courier New", "Courier", "Nimbus Mono", "Cousine", "Cumberland"),
    EAST: (
        "SimHei", "SimSun", "NSimSun", "SimKai", "KaiTi", "FangSong", "DengXian", "Microsoft YaHei", "Heiti SC",
        "Heiti TC", "STHeiti", "STSong", "STKaiti", "STFangsong", "Songti SC", "PingFang SC", "PingFang HK",
        "Hiragino Sans GB",
        "WenQuanYi Zen Hei", "Source Han Sans SC", "Source Han Sans CN", "Noto Sans CJK SC", "Noto Sans CJK TC",
        "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR", "Noto Serif CJK SC",
        "Droid Sans Fallback", "Arial Unicode MS", "Microsoft JhengHei", "PMingLiU", "MingLiU", "MS Gothic",
        "MS Mincho", "Meiryo", "Yu Gothic", "Hiragino Sans", "Hiragino Maru Gothic Pro", "IPAexGothic", "IPAGothic",
        "TakaoGothic",
        "Malgun Gothic", "NanumGothic", "NanumBarunGothic", "AppleGothic", "Gulim", "Batang", "Dotum",
    ),
}  # fmt: skip
FILES = {"msyh": EAST, "wqy": EAST, "notosanscjk": EAST, "sourcehan": EAST, "cour": MONO}
FOLDER = Path("/usr/share/fonts/truetype")


def for_matplotlib() -> None:
    """Give its font manager the other names, and a font for the letters that a font lacks."""
    from matplotlib import font_manager

    manager, kind = font_manager.fontManager, font_manager.FontManager
    have = {entry.name for entry in manager.ttflist}
    for family, names in FAMILIES.items():
        entries = [entry for entry in manager.ttflist if entry.name == family]
        for name in names:
            if name not in have:
                manager.ttflist += [dataclasses.replace(entry, name=name) for entry in entries]
    east = next((entry.fname for entry in manager.ttflist if entry.name == EAST), None)
    find, find_one = kind._find_fonts_by_props, kind.findfont

    def with_east(self, *arguments, **options):
        found = find(self, *arguments, **options)
        return found if east is None or east in found else [*found, east]

    def findfont(self, prop, *arguments, **options):
        named = prop.get_file() if isinstance(prop, font_manager.FontProperties) else None
        if named and not os.path.exists(named):
            return file_for(str(named)) or find_one(self, prop, *arguments, **options)
        return find_one(self, prop, *arguments, **options)

    add = kind.addfont

    def addfont(self, path) -> None:
        """A font that another stands for is there already."""
        if os.path.exists(path) or not file_for(str(path)):
            add(self, path)

    kind._find_fonts_by_props, kind.findfont, kind.addfont = with_east, findfont, addfont
    keep_fonts_over_forks()


class FontFile(mmap.mmap):
    """A font that FreeType reads from memory: from a file it does so by two system calls or more for each letter."""

    def __new__(cls, path: str):
        with open(path, "rb") as file:
            content = super().__new__(cls, file.fileno(), 0, access=mmap.ACCESS_READ)
        content.path = path
        return content

    def __str__(self) -> str:
        """What matplotlib takes for its name."""
        return self.path


@functools.cache  # one for all, never let go: it would close a descriptor by a number that a fork has given away
def font_file(path: str) -> FontFile | str:
    """From memory where that is possible."""
    try:
        return FontFile(path)
    except (OSError, ValueError):  # it is not there, or empty
        return path


def keep_fonts_over_forks() -> None:
    """matplotlib forgets its fonts in a fork, because they would read on where another process left off in a file that
    both have open. From memory each reads for itself, and finds what a font made of letters before."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    @functools.lru_cache(64)  # as theirs
    def get_font(paths, hinting_factor, *, _kerning_factor, thread_id):
        options = {"hinting_factor": hinting_factor, "_kerning_factor": _kerning_factor}
        first, *others = map(font_file, paths)
        return FT2Font(first, _fallback_list=[FT2Font(other, **options) for other in others], **options)

    font_manager._get_font = get_font


def for_pillow() -> None:
    """A font file that is not on this machine is the one that stands for it."""
    from PIL import ImageFont

    truetype = ImageFont.truetype

    @functools.wraps(truetype)
    def call(font=None, *arguments, **options):
        try:
            return truetype(font, *arguments, **options)
        except OSError:
            if not isinstance(font, (str, os.PathLike)) or not (other := file_for(str(font))):
                raise
            return truetype(other, *arguments, **options)

    ImageFont.truetype = call


def family_for(name: str) -> str:
    """The family that stands for one of this name, or the name."""
    return next((family for family, names in FAMILIES.items() if name.lower() in map(str.lower, names)), name)


def file_for(name: str) -> str | None:
    """The file that stands for one that is not there, by its name: `arialbd.ttf`, `C:/Windows/Fonts/simhei.ttf`."""
    stem = re.sub(r"[\s_]", "", re.split(r"[/\\]", name)[-1].rpartition(".")[0].lower())
    letters = stem.replace("-", "")
    known = {re.sub(r"\s", "", n.lower()): family for family, names in FAMILIES.items() for n in names} | FILES
    family = max((n for n in known if letters.startswith(n.replace("-", ""))), key=len, default=None)
    if family is None:
        return None
    bold, italic = re.search(r"bold|bd|bi$", stem) is not None, re.search(r"ital|oblique|[^r]i$", stem) is not None
    style = ("Bold" if bold else "") + ("Italic" if italic else "") or "Regular"
    path = FOLDER / "liberation" / f"{known[family].replace(' ', '')}-{style}.ttf"
    path = FOLDER / "wqy/wqy-microhei.ttc" if known[family] == EAST else path
    return str(path) if path.is_file() else None
