"""LaTeX documents, TikZ pictures and formulas, by pdflatex."""

from __future__ import annotations

import contextlib
import functools
import gzip
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

import sandbox
from languages import ProgramError, ProgramTimeout, ToolMissing
from languages.pixels import crop_margins, rasterize_pdf
from languages.protocol import Options, answer_of, confine_worker

SNIPPET = r"""\documentclass[border=2pt,varwidth=WIDTH]{standalone}
\usepackage{amsmath,amssymb,graphicx,xcolor,tikz,pgfplots,booktabs,array,multirow}
\pgfplotsset{compat=1.17}
\usetikzlibrary{arrows.meta,calc,positioning,shapes,patterns,decorations.pathreplacing,decorations.markings}
"""
# No page number, unless the document itself asks for a header.
PLAIN_PAGE = r"\makeatletter\ifdefined\AddToHook\AddToHook{class/after}{\pagestyle{empty}\let\ps@plain\ps@empty}\fi"
PLAIN_PAGE += r"\makeatother"


def latex_document(code: str) -> str:
    """A document stays as it is; a snippet (a picture, a formula, some text) gets a preamble."""
    if "\\documentclass" in code or "\\documentstyle" in code:
        return code
    preamble = SNIPPET.replace("WIDTH", r"\maxdimen" if "tikzpicture" in code else "14cm")
    if "\\begin{document}" in code:
        return preamble + code
    usepackage = r"\\usepackage\s*(?:\[[^\]]*\])?\s*\{[^}]*\}"
    packages, body = "\n".join(re.findall(usepackage, code)), re.sub(usepackage, "", code)
    return f"{preamble}{packages}\n\\begin{{document}}\n{body.strip()}\n\\end{{document}}\n"


# Packages loaded into a TeX format once instead of once per document: those that the document loads anyway, as amsmath,
# for one, changes how formulas look.
PACKAGES = {"snippet": SNIPPET.partition("\n")[2], "pgfplots": r"\usepackage{pgfplots}", "tikz": r"\usepackage{tikz}"}
ABOUT_COLOURS = r"\\documentclass\s*\[[^\]]*(?:names|table|cmyk|gray|monochrome|draft|final)|\\PassOptionsToPackage"


def preloaded_packages(code: str) -> str:
    """Which of PACKAGES suits a document, or "" if none does."""
    if "\\documentclass" not in code:
        return "" if "\\documentstyle" in code else "snippet"
    if re.search(ABOUT_COLOURS, code):  # options that xcolor and graphicx would have to see when they are loaded
        return ""
    preamble = code.partition("\\begin{document}")[0]
    return next((name for name in ("pgfplots", "tikz") if name in preamble), "")


@functools.cache
def tex_format(name: str, folder: str) -> str:
    """A TeX format in `folder` with one of PACKAGES preloaded (0.5 s, once), or for "" LaTeX as it is. Stored
    uncompressed: unpacking the stock format takes longer than all else in pdflatex's start."""
    if name:
        packages = PACKAGES[name].replace("\\usepackage", "\\RequirePackage") + "\\dump\n"
        Path(folder, f"{name}.tex").write_text(packages)
        command = ["pdflatex", "-ini", "-interaction=batchmode", f"&{tex_format('', folder)}", f"{name}.tex"]
        subprocess.run(command, cwd=folder, check=True)
        packed = Path(folder, f"{name}.fmt")
    else:
        find = ["kpsewhich", "-engine=pdftex", "pdflatex.fmt"]
        packed = Path(subprocess.run(find, capture_output=True, text=True).stdout.strip() or "missing")
    if not packed.is_file():
        return "pdflatex"
    content = packed.read_bytes()
    unpacked = Path(folder, f"{name or 'stock'}.fmt")
    unpacked.write_bytes(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    return str(unpacked.with_suffix(""))


def font_makers() -> str:
    """A folder of the programs by which TeX makes missing fonts, once per worker. Without the setting they would make
    them from files that a document wrote beside itself, for all documents that follow."""
    folder, nothing = tempfile.mkdtemp(), tempfile.mkdtemp()
    for name in ("mktexpk", "mktextfm", "mktexmf"):
        if program := shutil.which(name):
            Path(folder, name).write_text(f'#!/bin/sh\nKPSE_DOT={nothing} exec {program} "$@"\n')
            Path(folder, name).chmod(0o755)
    return folder


def latex_renderer(options: Options) -> Callable[[str], bytes]:
    """pdflatex in a fresh folder per document, its first page through pdfium.

    A document that fails with preloaded packages (it may want one of them with options) is tried without.
    """
    if shutil.which("pdflatex") is None:
        raise ToolMissing("latex needs pdflatex: apt install texlive-latex-extra texlive-pictures texlive-science")
    formats = tempfile.mkdtemp()
    confine_worker(options, children=True)
    tex_format("tikz", formats)
    import pypdfium2  # noqa: F401  (warm)

    arguments = ["-no-shell-escape", "-halt-on-error", "-interaction=batchmode", "-jobname=program"]
    arguments.append(PLAIN_PAGE + r"\pdfsetrandomseed 0 \input{program.tex}")
    environment = os.environ | {"openin_any": "p", "openout_any": "p", "max_print_line": "1000"}
    environment |= {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}
    environment["PATH"] = f"{font_makers()}:{environment['PATH']}"

    def typeset(code: str, format: str) -> bytes:
        """The PDF file. Raises ProgramError."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            source, log, pdf = (Path(folder, f"program.{suffix}") for suffix in ("tex", "log", "pdf"))
            source.write_text(latex_document(code))
            command = ["pdflatex", f"-fmt={format}", *arguments]
            process = subprocess.Popen(  # its standard streams are null
                command, cwd=folder, env=environment, start_new_session=True, preexec_fn=sandbox.die_with_parent
            )
            status = process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if status == -signal.SIGKILL:  # it had its time, or the machine ran out of memory
                raise ProgramTimeout("pdflatex was killed")
            if status != 0 or not pdf.exists():
                raise ProgramError(latex_errors(log.read_text(errors="replace") if log.exists() else "", status))
            return pdf.read_bytes()

    def draw(code: str) -> Image.Image:
        packages = preloaded_packages(code)
        try:
            pdf = typeset(code, tex_format(packages, formats))
        except ProgramTimeout:
            raise
        except ProgramError:
            if not packages:
                raise
            pdf = typeset(code, tex_format("", formats))
        image = rasterize_pdf(pdf, options.max_pixels)
        sets_its_page = "tikzpicture" in code or "\\documentclass" in code
        sets_its_page &= re.search(r"\{standalone\}|\{preview\}", latex_document(code)) is not None
        return image if sets_its_page else crop_margins(image)

    def render(code: str) -> bytes:
        return answer_of(lambda: draw(code), options)

    def prepare(code: str) -> None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):  # `draw` tries again, and says what is wrong
            tex_format(preloaded_packages(code), formats)

    render.prepare = prepare
    return render


def latex_errors(log: str, status: int) -> str:
    """The "! ..." lines of a TeX log, with the source lines they point at."""
    lines = re.findall(r"^(?:! .*|l\.\d+ .*)$", log, re.MULTILINE)
    return "\n".join(lines[:8]) or f"pdflatex made no page (status {status}); the document is empty or too large"
