"""The drawing alone, for benchmarks/render.py: in a process that has everything imported, with a page that is open or a
TeX format made before, without fork, sandbox or tidying up. Run by the interpreter of generated programs; asked by a
line of JSON, [code, language], it answers with seconds, or null where it fails."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

sys.path[0] = str(Path(__file__).parent.parent)
import sandbox  # noqa: E402
from languages import (  # noqa: E402
    LANGUAGES,  # noqa: E402
    browser,
    figures,
    latex,
    pixels,
    protocol,
    python,
)

SIDE = 336  # px of an svg's picture, as in the release
OPTIONS = protocol.Options(30.0, 2048, SIDE, 4_000_000, sandbox.Layers(bwrap=False, landlock=0, seccomp=False))
QUIETLY = ["-no-shell-escape", "-halt-on-error", "-interaction=batchmode"]  # pdflatex


class Floor:
    """A function for each language, and what they keep ready."""

    def __init__(self):
        os.chdir(tempfile.mkdtemp())
        self.captured: dict = {}
        python.warm_up_figures()
        python.warm_up_molecules()
        figures.capture_pictures(self.captured)
        figures.capture_figures(self.captured, OPTIONS.max_pixels)
        self.page = browser.Browser(browser.chromium_path(), 1 << 30)

    def python(self, code: str) -> Image.Image:
        import matplotlib.pyplot as plt

        exec(compile(code, "program.py", "exec"), {"__name__": "__main__"})
        if "picture" not in self.captured and plt.get_fignums():
            plt.show()
        return self.captured.get("picture") or python.last_picture_file(OPTIONS)

    def svg(self, code: str) -> Image.Image:
        return pixels.rasterize_svg(code.encode(), OPTIONS.svg_side)

    def html(self, code: str) -> Image.Image:
        self.page.open(code)
        return self.page.screenshot(*self.page.size())

    def latex(self, code: str) -> Image.Image:
        """TeX itself is started for each document, with its packages loaded already where that is possible."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "program.tex").write_text(latex.latex_document(code))
            for name in (latex.preloaded_packages(code), ""):
                command = ["pdflatex", f"-fmt={latex.tex_format(name, os.getcwd())}", *QUIETLY, "program.tex"]
                if subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, timeout=60).returncode == 0:
                    break
            pdf = Path(folder, "program.pdf").read_bytes()
        return pixels.crop_margins(pixels.rasterize_pdf(pdf, OPTIONS.max_pixels))

    def seconds(self, code: str, language: str) -> float | None:
        start = time.perf_counter()
        try:
            pixels.to_rgb(getattr(self, language)(code), OPTIONS.max_pixels).tobytes()
        except Exception as error:
            print(f"failed: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
            return None
        return time.perf_counter() - start

    def tidy(self, language: str) -> None:
        import matplotlib.pyplot as plt

        self.captured.clear()
        plt.close("all")
        plt.rcdefaults()
        if language == "html":
            self.page.leave()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what programs print is none
    os.open(os.devnull, os.O_RDONLY)  # descriptors 3 and 4 are taken, which the browser's pipes become in its process
    floor = Floor()
    for language in ("python", "svg", "html", "latex"):
        with contextlib.suppress(Exception):
            floor.seconds(LANGUAGES[language].sample, language)
        floor.tidy(language)
    for line in sys.stdin:
        code, language = json.loads(line)
        print(json.dumps(floor.seconds(code, language)), file=answers)
        floor.tidy(language)


if __name__ == "__main__":
    main()
