"""What TeX makes of documents and snippets: runs, engines, letters, pages, what is missing, and what Lua may not do."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import render
import sandbox
from languages import latex, tex_packages

pytestmark = [
    pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed"),
    pytest.mark.skipif(not sandbox.probe().safe, reason="no sandbox works on this machine"),
]
TIMEOUT = 120.0


def has_file(name: str) -> bool:
    return bool(subprocess.run(["kpsewhich", name], capture_output=True).stdout) if shutil.which("kpsewhich") else False


def need(package: str, file: str) -> None:
    if not has_file(file):
        pytest.skip(f"{package} is not installed")


def need_lua():
    need("texlive-luatex", "luaotfload-main.lua")
    if not sandbox.probe().landlock:
        pytest.skip("lualatex is not run without Landlock")


def need_xelatex():
    if shutil.which("xelatex") is None:
        pytest.skip("texlive-xetex is not installed")
    if not sandbox.probe().landlock:
        pytest.skip("xelatex is not run without Landlock")


def need_font(name: str, package: str) -> None:
    if (
        shutil.which("fc-list") is None
        or name not in subprocess.run(["fc-list"], capture_output=True, text=True).stdout
    ):
        pytest.skip(f"{package} is not installed")


@pytest.fixture(scope="module")
def renderer():
    with render.Renderer(workers=1, timeout=TIMEOUT, cache_mb=0) as shared:
        yield shared


def draws(renderer, code: str):
    result = renderer.render(textwrap.dedent(code).strip(), "latex")
    assert result.error is None, result.error
    return result.image


def fails(renderer, code: str) -> str:
    result = renderer.render(textwrap.dedent(code).strip(), "latex")
    assert result.image is None and result.error
    return result.error


def standalone(body: str, preamble: str = "", options: str = "border=2pt") -> str:
    return f"\\documentclass[{options}]{{standalone}}\n{preamble}\n\\begin{{document}}{body}\\end{{document}}"


def article(body: str, preamble: str = "") -> str:
    return f"\\documentclass{{article}}\n{preamble}\n\\begin{{document}}{body}\\end{{document}}"


def where(image, colour) -> np.ndarray:
    """(row, column) of pixels near `colour`."""
    return np.argwhere(np.abs(np.asarray(image).astype(int) - colour).max(axis=-1) < 40)


def assert_same(renderer, one: str, other: str) -> None:
    assert draws(renderer, one).tobytes() == draws(renderer, other).tobytes()


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "means"),
    [
        (r"See \ref{a}.\section{One}\label{a}", r"See 1.\section{One}"),
        (r"On page \pageref{a}.\section{One}\label{a}", r"On page 1.\section{One}"),
        (r"\cite{a}\begin{thebibliography}{9}\bibitem{a} B\end{thebibliography}", None),
    ],
)
def test_references_are_known(renderer, body, means):
    means = means or r"[1]\begin{thebibliography}{9}\bibitem{a} B\end{thebibliography}"
    assert_same(renderer, article(body), article(means))


def test_a_table_of_contents_is_filled(renderer):
    empty = draws(renderer, article(r"\section{One}"))
    filled = draws(renderer, article(r"\tableofcontents\section{One}"))
    titled = draws(renderer, article(r"\section*{Contents}\section{One}"))
    assert filled.width > 4 * titled.width > 0 and filled.height > titled.height > empty.height


def test_a_remembered_picture_finds_the_page(renderer):
    corners = r"\fill[blue](current page.south west) rectangle ++(1,1) (current page.north east) rectangle ++(-1,-1);"
    code = rf"""\begin{{tikzpicture}}[remember picture,overlay]{corners}
        \fill[red](current page.center) circle (0.5);\end{{tikzpicture}}"""
    image = draws(renderer, article(code, r"\usepackage{tikz}"))
    red, blue = where(image, (255, 0, 0)), where(image, (0, 0, 255))
    assert len(red) and len(blue)
    centre = (blue.min(axis=0) + blue.max(axis=0)) / 2
    assert np.abs(red.mean(axis=0) - centre).max() < 3
    assert (image.width, image.height) == (1275, 1650) or image.height > 1500


def test_a_mark_in_the_text_is_found(renderer):
    need("texlive-pictures", "tikzlibrarytikzmark.code.tex")
    code = article(
        r"\tikzmark{a}\hspace{5cm}\tikzmark{b}x\begin{tikzpicture}[remember picture,overlay]"
        r"\draw[red,line width=2pt](pic cs:a)--(pic cs:b);\end{tikzpicture}",
        r"\usepackage{tikz}\usetikzlibrary{tikzmark}",
    )
    red = where(draws(renderer, code), (255, 0, 0))
    assert abs(np.ptp(red[:, 1]) - 5 / 2.54 * 150) < 8 and np.ptp(red[:, 0]) < 8


@pytest.mark.parametrize(
    ("body", "again"),
    [(r"", False), (r"\label{a}", False), (r"\label{a}\ref{a}", True), (r"\tikz[remember picture]\node(a){};", True)],
)
def test_it_runs_again_only_where_something_asks(renderer, body, again):
    """The document's size tells whether an earlier run left something to read."""
    knows = r"\IfFileExists{\jobname.aux}{\def\side{2in}}{\def\side{1in}}\usepackage{tikz}"
    image = draws(renderer, standalone(body + r"\rule{\side}{\side}", knows, "border=0pt"))
    assert image.height >= 300 if again else 150 <= image.height < 200


def test_what_asks_for_another_run():
    nothing = dict.fromkeys(("aux", "nav", *latex.LISTS), "")
    assert not latex.wants_another_run("", "", nothing | {"aux": "\\relax \n\\gdef \\@abspage@last{1}\n"})
    assert not latex.wants_another_run("", "Label(s) may have changed. Rerun to get cross-references right.", nothing)
    assert latex.wants_another_run("", "Table widths have changed. Rerun LaTeX.", nothing)
    assert latex.wants_another_run("", "LaTeX Warning: There were undefined references.", nothing)
    assert latex.wants_another_run("", "", nothing | {"aux": "\\pgfsyspdfmark {pgfid1}{1}{2}\n"})
    assert latex.wants_another_run("", "", nothing | {"toc": "\\contentsline"})
    assert latex.wants_another_run("\\usetheme{Madrid}", "", nothing | {"nav": "\\headcommand"})
    assert not latex.wants_another_run("", "", nothing | {"nav": "\\headcommand"})


# ---- pages -----------------------------------------------------------------------------------------------------------


def test_the_last_page_is_drawn(renderer):
    pictures = r"\begin{tikzpicture}\fill[blue](0,0) circle (1);\end{tikzpicture}"
    pictures += r"\begin{tikzpicture}\fill[red](0,0) rectangle (2,1);\end{tikzpicture}"
    code = standalone(pictures, "", "tikz")
    image = draws(renderer, code)
    assert abs(image.width / image.height - 2) < 0.05 and len(where(image, (255, 0, 0))) > 0.9 * 119 * 59


def test_an_empty_last_page_is_passed_over(renderer):
    code = article(r"\rule{2in}{1in}\newpage\mbox{}\newpage\mbox{}")
    assert draws(renderer, code).size == draws(renderer, article(r"\rule{2in}{1in}")).size


def test_margins_are_cut_by_the_colour_of_the_page(renderer):
    circle = r"\begin{tikzpicture}\fill[white](0,0) circle (1);\end{tikzpicture}"
    image = draws(renderer, article(circle, r"\usepackage{tikz}\pagecolor{black}"))
    assert max(image.size) < 150 and image.getpixel((0, 0)) == (0, 0, 0)
    assert image.getpixel((image.width // 2, image.height // 2)) == (255, 255, 255)
    assert "page is empty" in fails(renderer, article(r"\mbox{}"))


def test_a_standalone_page_that_is_not_cut_loses_its_margins(renderer):
    square = r"\rule{1in}{1in}"
    assert max(draws(renderer, standalone(square, "", "crop=false")).size) < 180
    assert max(draws(renderer, standalone(square, "", "border=1in")).size) in (450, 451)
    tight = r"\usepackage[active,tightpage]{preview}\setlength\PreviewBorder{1in}"
    assert max(draws(renderer, article(rf"\begin{{preview}}{square}\end{{preview}}", tight)).size) in (450, 451)


# ---- letters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "declared",
    [
        r"\usepackage[latin1]{inputenc}",
        r"\usepackage[latin9]{inputenc}",
        r"\usepackage[ansinew]{inputenc}",
        r"\usepackage[applemac]{inputenc}",
        r"\usepackage[cp1251]{inputenc}",
        r"\usepackage[utf8]{inputenc}\inputencoding{latin1}",
        r"\usepackage[utf8x]{inputenc}",
        r"\PassOptionsToPackage{latin1}{inputenc}\usepackage{inputenc}",
        r"\usepackage[latin1]{inputenx}",
    ],
)
def test_a_declared_encoding_is_not_believed(renderer, declared):
    assert_same(renderer, standalone("Größe, café", declared), standalone(r"Gr\"o\ss e, caf\'e"))


def test_an_encoding_of_the_class_or_in_the_text_is_not_believed(renderer):
    by_class = "\\documentclass[latin1,border=2pt]{standalone}\\usepackage{inputenc}\\begin{document}é\\end{document}"
    assert_same(renderer, by_class, standalone("\\'e"))
    assert_same(renderer, "\ufeff" + standalone("é"), standalone("\\'e"))
    in_text = standalone(r"\inputencoding{latin9}é", r"\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}")
    assert_same(renderer, in_text, standalone(r"\'e", r"\usepackage[T1]{fontenc}"))


@pytest.mark.parametrize(
    ("letters", "commands"),
    [
        ("5 °C, 2 × 3 ≤ 7", r"5 \textdegree C, 2 \texttimes\ 3 $\leq$ 7"),
        ("α → β", r"$\alpha$ $\rightarrow$ $\beta$"),
        ("$α_1 ∈ ℝ$, H₂O, 10⁻³", r"$\alpha_1 \in \mathbb{R}$, H$_2$O, 10$^{-3}$"),
        ("ε ≠ 0 ⇒ ∞", r"$\varepsilon$ $\neq$ 0 $\Rightarrow$ $\infty$"),
    ],
)
def test_letters_that_pdflatex_does_not_know(renderer, letters, commands):
    assert_same(renderer, letters, commands)
    assert_same(renderer, standalone(letters, r"\usepackage{amssymb}"), standalone(commands, r"\usepackage{amssymb}"))


def ink(image) -> float:
    return float((np.asarray(image.convert("L")) < 128).mean())


@pytest.mark.parametrize("text", ["中文标签", "日本語です", "한국어"])
def test_chinese_japanese_and_korean_text(renderer, text):
    need_xelatex()
    need_font("WenQuanYi", "fonts-wqy-microhei")
    for code in (
        rf"\begin{{tikzpicture}}\node[draw,fill=yellow]{{{text}}};\end{{tikzpicture}}",
        standalone(text, r"\usepackage[utf8]{inputenc}\usepackage[T1]{fontenc}"),
    ):
        image = draws(renderer, code)
        assert ink(image) > 0.07 and image.width > 25 * len(text) / 2


def test_wide_letters_break_into_lines_and_stand_in_formulas(renderer):
    need_xelatex()
    need_font("WenQuanYi", "fonts-wqy-microhei")
    long = r"\begin{tikzpicture}\node[draw,text width=3cm]{这是一个很长的中文句子需要自动换行};\end{tikzpicture}"
    image = draws(renderer, long)
    assert image.width < 220 and image.height > 45
    assert draws(renderer, "$x_{中} + α$ 中").width > draws(renderer, "$x + \\alpha$").width + 20


def test_cyrillic_and_greek_text_without_babel(renderer):
    need_xelatex()
    need_font("DejaVu Serif", "fonts-dejavu-core")
    for text in ("Привет мир", "Ελληνικά γράμματα"):
        image = draws(renderer, text)
        assert image.width > 110 and ink(image) > 0.05


def test_a_letter_that_no_font_has_is_an_error(renderer):
    need_xelatex()
    assert "no font here has the letters \U0001245f" in fails(renderer, "A \U0001245f")


def test_cjk_environments_say_utf8(renderer):
    need("latex-cjk-common", "CJKutf8.sty")
    need("latex-cjk-chinese-arphic-gbsn00lp", "c70gbsn.fd")
    right = article(r"\begin{CJK}{UTF8}{gbsn}中文\end{CJK}", r"\usepackage{CJKutf8}")
    assert ink(draws(renderer, right)) > 0.04
    assert_same(renderer, article(r"\begin{CJK}{GBK}{song}中文\end{CJK}", r"\usepackage{CJK}"), right)


@pytest.mark.parametrize(
    ("language", "file", "text"),
    [
        ("ngerman", "ngermanb.ldf", 'Größe "`x"\''),
        ("french", "french.ldf", "Où est-il ?"),
        ("russian", "russianb.ldf", "Привет"),
        ("greek", "greek.ldf", "Ελλάδα"),
    ],
)
def test_languages_of_babel(renderer, language, file, text):
    need(f"babel's {language}", file)
    encoding = {"russian": r"\usepackage[T2A]{fontenc}"}.get(language, "")
    assert ink(draws(renderer, standalone(text, rf"{encoding}\usepackage[{language}]{{babel}}"))) > 0.03


# ---- engines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "engine"),
    [
        (r"\documentclass{article}", "pdflatex"),
        (r"$x$", "pdflatex"),
        (r"\documentclass{article}\directlua{}", "lualatex"),
        (r"\documentclass{article}\usepackage{luacode}", "lualatex"),
        (r"\documentclass{article}\usetikzlibrary{graphs,graphdrawing}", "lualatex"),
        (r"\documentclass{article}\usepackage{pst-plot}", "lualatex"),
        (r"\begin{pspicture}(1,1)\psline(0,0)(1,1)\end{pspicture}", "lualatex"),
        (r"\usepackage{pst-plot}$x$", "lualatex"),
        (r"\usepackage{fontspec}$x$", "xelatex"),
        (r"$\psi$", "pdflatex"),
        (r"\documentclass{article}\usepackage{amsmath,fontspec}", "xelatex"),
        (r"\documentclass{article}\usepackage[x]{unicode-math}", "xelatex"),
        (r"\documentclass{ctexart}", "xelatex"),
        ("\\documentclass{article}\n% \\usepackage{fontspec}", "pdflatex"),
        (r"\documentclass{article}\ifxetex\usepackage{fontspec}\fi", "pdflatex"),
        ("% !TEX program = xelatex\n\\documentclass{article}", "xelatex"),
        ("% !TeX TS-program = lualatex\n\\documentclass{article}", "lualatex"),
        ("% arara: lualatex\n\\documentclass{article}", "lualatex"),
        ("% !TEX program = pdflatex\n\\documentclass{article}", "pdflatex"),
    ],
)
def test_the_engine_that_a_document_asks_for(monkeypatch, code, engine):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert latex.engine_for(code) == engine
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "xelatex" else name)
    assert latex.engine_for(code) != "xelatex"


def test_lua_draws(renderer):
    need_lua()
    square = standalone(r"\directlua{tex.print('\\rule{1in}{' .. 1 + 1 .. 'in}')}", "", "border=0pt")
    image = draws(renderer, square)
    assert image.size == (150, 300) and ink(image) > 0.98
    snippet = r"\begin{tikzpicture}\directlua{tex.print('\\fill[red](0,0) rectangle (2,1);')}\end{tikzpicture}"
    assert len(where(draws(renderer, snippet), (255, 0, 0))) > 5000


def test_a_font_of_the_system(renderer):
    need_xelatex()
    need_font("Liberation Sans", "fonts-liberation")
    text = "Sans ΑΒΓ"
    sans = draws(renderer, standalone(text, r"\usepackage{fontspec}\setmainfont{Liberation Sans}"))
    serif = draws(renderer, standalone(text, r"\usepackage{fontspec}\setmainfont{Liberation Serif}"))
    assert sans.width > 60 and ink(sans) > 0.05 and sans.tobytes() != serif.tobytes()


# ---- snippets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fragment", "whole"),
    [
        (r"\int_0^\infty e^{-x}\,dx = 1", r"\[\int_0^\infty e^{-x}\,dx = 1\]"),
        (r"a &= b_1 \\ c &= d^2", r"\[\begin{aligned}a &= b_1 \\ c &= d^2\end{aligned}\]"),
        (r"x_1 \text{ is large and } y_2", r"\[x_1 \text{ is large and } y_2\]"),
        (r"\draw[red] (0,0) -- (1,1);", r"\begin{tikzpicture}\draw[red] (0,0) -- (1,1);\end{tikzpicture}"),
        (r"\mathcal{L} = c", r"\[\mathcal{L} = c\]"),
        (
            r"\begin{aligned} a &= b \\[2pt] &= d^2\end{aligned}",
            r"\[\begin{aligned} a &= b \\[2pt] &= d^2\end{aligned}\]",
        ),
        (r"\ce{H2O} + x_1", r"\usepackage[version=4]{mhchem}\[\ce{H2O} + x_1\]"),
        (r"\begin{document}x_1 \quad for all of them\end{document}", r"\[x_1 \quad for all of them\]"),
    ],
)
def test_a_part_of_a_formula_or_picture(renderer, fragment, whole):
    assert_same(renderer, fragment, whole)


def test_text_with_formulas_is_not_made_one(renderer):
    assert "Missing $" in fails(renderer, "the file_name of $x$")


@pytest.mark.parametrize(
    ("snippet", "file"),
    [
        (r"\begin{forest}[A[B][C]]\end{forest}", "forest.sty"),
        (
            r"\begin{algorithm}\caption{A}\begin{algorithmic}\STATE $x$\end{algorithmic}\end{algorithm}",
            "algorithmic.sty",
        ),
        (
            r"\begin{algorithm}[t]\caption{A}\begin{algorithmic}[1]\State $x$\end{algorithmic}\end{algorithm}",
            "algpseudocode.sty",
        ),
        (
            r"\begin{algorithm}\begin{algorithmic}\Ensure x\Repeat\Until{$x$}\end{algorithmic}\end{algorithm}",
            "algorithm.sty",
        ),
        (r"\begin{algorithm}\KwIn{x}\KwOut{y}\end{algorithm}", "algorithm2e.sty"),
        (r"\Tree [.S [.NP dogs ] [.VP bark ] ]", "tikz-qtree.sty"),
        (
            r"\begin{dependency}\begin{deptext}a \& b\\\end{deptext}\depedge{2}{1}{x}\end{dependency}",
            "tikz-dependency.sty",
        ),
        (r"\begin{threeparttable}\begin{tablenotes}\item x\end{tablenotes}\end{threeparttable}", "threeparttable.sty"),
        (r"\begin{adjustbox}{width=5cm}x\end{adjustbox}", "adjustbox.sty"),
        (r"\begin{circuitikz}\draw (0,0) to[R=$R$] (2,0);\end{circuitikz}", "circuitikz.sty"),
        (r"\begin{tikzpicture}\draw (0,0) to[R=$R$] (2,0);\end{tikzpicture}", "circuitikz.sty"),
        (r"\begin{tikzcd}A \arrow[r] & B\end{tikzcd}", "tikz-cd.sty"),
        (r"\begin{lstlisting}[language=C]" + "\nint x;\n" + r"\end{lstlisting}", "listings.sty"),
        (r"\begin{tcolorbox}x\end{tcolorbox}", "tcolorbox.sty"),
        (r"\ce{H2O}", "mhchem.sty"),
        (r"\SI{3}{\metre}", "siunitx.sty"),
        (r"\begin{tikzpicture}[mindmap]\node[concept]{x};\end{tikzpicture}", "tikz.sty"),
        (r"\begin{tikzpicture}\node[state](a){};\node[state,right=of a](b){};\end{tikzpicture}", "tikz.sty"),
        (r"\begin{tikzpicture}\begin{polaraxis}\addplot{x};\end{polaraxis}\end{tikzpicture}", "pgfplots.sty"),
        (r"\begin{tikzpicture}\node[fill,drop shadow]{x};\end{tikzpicture}", "tikz.sty"),
        (r"\chemfig{A-B}", "simplekv.tex"),
        (
            r"\begin{tikzpicture}\begin{axis}\addplot[name path=A]{x};\addplot[name path=B]{x^2};"
            r"\addplot fill between[of=A and B];\end{axis}\end{tikzpicture}",
            "pgfplots.sty",
        ),
        (r"\begin{axis}\addplot[name path=A]{x};\end{axis}", "pgfplots.sty"),
        (
            r"\begin{groupplot}[group style={group size=2 by 1},width=4cm]\nextgroupplot\addplot{x};"
            r"\nextgroupplot\addplot{-x};\end{groupplot}",
            "pgfplots.sty",
        ),
        (r"\begin{smithchart}\addplot coordinates{(0.5,0.5)(1,1)};\end{smithchart}", "pgfplots.sty"),
        (r"\begin{tabular}{lS[table-format=2.1]}a&{b}\\x&12.3\\\end{tabular}", "siunitx.sty"),
        (r"\begin{tabular}{l*{2}{S}}a&{b}&{c}\\x&12.3&1\\\end{tabular}", "siunitx.sty"),
        (r"\begin{tblr}{hlines,row{1}={bg=blue!20}}a&b\\c&d\end{tblr}", "tabularray.sty"),
        (r"\begin{tikztimingtable}a & HLHL\\ b & 2C2C\\\end{tikztimingtable}", "tikz-timing.sty"),
        (r"\texttiming{HLHL}", "tikz-timing.sty"),
        (
            r"\begin{sequencediagram}\newthread{a}{A}\newinst{b}{B}\begin{call}{a}{f}{b}{r}\end{call}"
            r"\end{sequencediagram}",
            "pgf-umlsd.sty",
        ),
        (r"\begin{venndiagram2sets}\fillA\end{venndiagram2sets}", "venndiagram.sty"),
        (r"\begin{venndiagram3sets}\fillA\end{venndiagram3sets}", "venndiagram.sty"),
        ("\\dirtree{%\n.1 /.\n.2 a.\n.2 b.\n}", "dirtree.sty"),
        (r"\begin{tikzpicture}\wheelchart{10/red/a,20/blue/b}\end{tikzpicture}", "wheelchart.sty"),
        (r"\wheelchart{10/red/a,20/blue/b}", "wheelchart.sty"),
    ],
)
def test_a_snippet_gets_what_it_uses(renderer, snippet, file):
    need(file, file)
    assert ink(draws(renderer, snippet)) > 0.001


@pytest.mark.parametrize(
    "snippet",
    [
        r"\begin{pspicture}(3,2)\psline[linecolor=red,linewidth=3pt](0,0)(3,2)\end{pspicture}",
        r"\psset{unit=1cm}\begin{pspicture}(3,2)\psplot[linecolor=red]{0}{2}{x 2 exp 2 div}\end{pspicture}",
    ],
)
def test_a_snippet_for_pstricks(renderer, snippet):
    need_lua()
    need("texlive-pstricks", "pst-plot.sty")
    assert len(where(draws(renderer, snippet), (255, 0, 0))) > 50


WORDS = "Here is the picture (it's {simple}):"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (f"{WORDS}\n\n```latex\n{standalone('Hello')}\n```\nIt shows a word.", standalone("Hello")),
        (f"{WORDS}\n\n{standalone('Hello')}\n\nIt shows a word.", standalone("Hello")),
        (f"{WORDS}\n\n```latex\n$x^2$\n```\nIt shows a formula.", "$x^2$"),
        (f"{WORDS}\n~~~\n$x^2$\n~~~", "$x^2$"),
        ("```tex\n$x^2$", "$x^2$"),
    ],
)
def test_words_around_a_program_are_no_part_of_it(renderer, text, program):
    assert_same(renderer, text, program)


def test_what_is_no_prose_stays():
    listing = (
        "\\documentclass{article}\\begin{document}\\begin{verbatim}\n```tex\nx\n```\n\\end{verbatim}\\end{document}"
    )
    first = "% !TEX program = xelatex\n\\documentclass{article}"
    for code in (listing, first, f"\\RequirePackage{{x}}{first}", "Words about $x$", "``quotes''\n```'"):
        assert latex.without_prose(code) == code


# ---- what is missing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (article("x", r"\usepackage{no-such-package-at-all}"), "no-such-package-at-all.sty"),
        (article("x", r"\usepackage[klingon]{babel}"), "babel's language klingon"),
        (article(r"\includegraphics{fig1.png}", r"\usepackage{graphicx}"), "the file fig1.png is not here"),
        (article(r"\includegraphics{plots/fig}", r"\usepackage{graphicx}"), "the file plots/fig is not here"),
        (r"\documentclass{no-such-class}\begin{document}x\end{document}", "no-such-class.cls"),
        *(
            (
                article(body, rf"\usepackage{{{package}}}"),
                f"the file {name} is not here: a program has only its own text",
            )
            for body, package, name in (
                (r"\input{chapter1}", "tikz", "chapter1.tex"),
                (r"\input{fig.tikz}", "tikz", "fig.tikz"),
                (r"\input{fig.pgf}", "tikz", "fig.pgf"),
                (r"\include{chapters/a}", "tikz", "chapters/a.tex"),
                (r"\tikz\begin{axis}\addplot table{data.csv};\end{axis};", "pgfplots", "data.csv"),
                (r"\tikz\begin{axis}\addplot file{data.dat};\end{axis};", "pgfplots", "data.dat"),
                (r"\lstinputlisting{code.py}", "listings", "code.py"),
            )
        ),
        (article("x", r"\usepackage{tikz}\usetikzlibrary{nosuch}"), "TikZ's library nosuch is not here"),
        (article("x", r"\usepackage{pgfplots}\usepgfplotslibrary{nosuch}"), "pgfplots' library nosuch is not here"),
    ],
)
def test_what_is_missing_is_named(renderer, code, words):
    error = fails(renderer, code)
    assert words in error and "\n" not in error and "not here" in error


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (
            article(r"\tikz\draw(0,0)--(1,1);", r"\usepackage{tikz}\usetikzlibrary{external}\tikzexternalize"),
            "the document wants to start another program, and programs start none here",
        ),
        (
            article(r"\tikz\begin{axis}\addplot gnuplot{x};\end{axis};", r"\usepackage{pgfplots}"),
            "the document wants to start another program, and programs start none here",
        ),
        (r"\documentclass{article}\begin{document}Hello", r"the document ends before \end{document}"),
        (article("")[:-14] + r"\begin{center}x", r"the document ends before \end{document}"),
    ],
)
def test_what_a_document_may_not_is_said(renderer, code, error):
    assert fails(renderer, code) == error


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("Package svg Error: File `a.svg' is missing.", "the file a.svg is not here"),
        ("Package csvsimple Error: File 'a.csv' not existent, not readable, or empty!.", "the file a.csv is not here"),
        ("Package datatool Error: Can't load database `x' (file `a.csv' doesn't exist).", "the file a.csv is not here"),
        ("Package minted Error: You must invoke LaTeX with the -shell-escape flag.", "start another program"),
        ("LaTeX Error: File `pst-plot.tex' not found.", "TeX's pst-plot.tex is not here"),
        ("Package babel Error: Unknown option 'arabic'. Either", "apt install texlive-lang-arabic"),
        ("Package babel Error: Unknown option 'japanese'. Either", "apt install texlive-lang-japanese"),
        ("Package babel Error: Unknown option 'klingon'. Either", "/klingon.ldf"),
    ],
)
def test_what_packages_say_is_missing(said, means):
    error = latex.latex_errors(f"! {said}\nl.3 x\n", 1)
    assert means in error and "\n" not in error


def test_a_package_that_a_snippet_needs_is_named():
    lines = tex_packages.snippet_needs(r"\faHome \ding{51}", "! Undefined control sequence.")
    assert r"\IfFileExists{fontawesome5.sty}" in lines and r"\usepackage{pifont}" in lines
    assert tex_packages.snippet_needs(r"\faHome \ding{51}", "", lines) == lines, "nothing is loaded twice"
    log = f"{tex_packages.ABSENT} fontawesome5.sty\n! Undefined control sequence.\nl.7 \\faHome\n"
    assert latex.latex_errors(log, 1) == "TeX's fontawesome5.sty is not here: apt install texlive-fonts-extra"
    assert "Missing $" in latex.latex_errors(log.replace("Undefined control sequence", "Missing $ inserted"), 1)


def test_the_debian_package_of_what_snippets_need_is_known():
    names = {
        package.rpartition("]")[2] for needs in tex_packages.SNIPPET_NEEDS.values() for package in needs.split(",")
    }
    base = ["amsthm", "bm", "colortbl", "graphicx", "hhline", "hyperref", "ifthen", "longtable", "multicol", "tabularx"]
    assert names - set(tex_packages.WHERE) == set(base), "these are in every installation (texlive-latex-base)"


def test_the_debian_package_is_named(renderer):
    assert tex_packages.debian_package("fontawesome5.sty") == "apt install texlive-fonts-extra"
    assert tex_packages.debian_package("pst-plot.sty") == "apt install texlive-pstricks"
    assert tex_packages.debian_package("simplekv.tex") == "apt install texlive-plain-generic"
    assert tex_packages.debian_package("french") == "apt install texlive-lang-french"
    assert "apt-file search /odd.sty" in tex_packages.debian_package("odd.sty")
    log = "! LaTeX Error: File `ulem.sty' not found.\nl.3 \\begin\n"
    assert latex.latex_errors(log, 1) == "TeX's ulem.sty is not here: apt install texlive-plain-generic"
    log = "! I can't find file `simplekv.tex'.\n"
    assert "texlive-plain-generic" in latex.latex_errors(log, 1)
    log = "! Package babel Error: Unknown option 'french'. Either you misspelled it\n"
    assert "apt install texlive-lang-french" in latex.latex_errors(log, 1)
    log = "! Package fontenc Error: Encoding file `t2aenc.def' not found.\n"
    assert "apt install texlive-lang-cyrillic" in latex.latex_errors(log, 1)


# ---- hostile Lua -----------------------------------------------------------------------------------------------------


def lua(code: str) -> str:
    """A document that draws a square of 2 inches where `code` returns true, else of 1 inch."""
    code = " ".join(code.split()).replace("~", r"\string~")
    body = (
        rf"\directlua{{local ok = (function() {code} end)() tex.print('\\rule{{1in}}{{' .. (ok and 2 or 1) .. 'in}}')}}"
    )
    return standalone(body, "", "border=0pt")


def holds(renderer, code: str) -> bool:
    """Whether `code` in Lua, on one line and without a comment or a percent sign, returns true."""
    need_lua()
    return draws(renderer, lua(code)).height == 300


def test_lua_may_use_its_own_folder(renderer):
    assert holds(renderer, "local f = io.open('own', 'w') f:write('x') f:close() return io.open('own') ~= nil")


@pytest.mark.parametrize(
    "attack",
    [
        "return io.open('/etc/passwd') ~= nil",
        "return io.open('/proc/self/status') ~= nil or io.open('/proc/1/environ') ~= nil",
        "return io.open('../outside', 'w') ~= nil",
        "return lfs.mkdir('../outside') == true",
        "local ok, next = pcall(lfs.dir, '..') return ok and next ~= nil",
        "return os.rename('program.tex', '../program.tex') == true",
        "return os.execute('true') == true or os.execute('true') == 0",
        "local ok, pipe = pcall(io.popen, 'id') return ok and pipe ~= nil and pipe:read('a') ~= ''",
        "local ok, r = pcall(os.spawn, {'touch', 'spawned'}) return lfs.attributes('spawned') ~= nil",
        "local ok, s = pcall(require, 'socket') return ok and s.tcp ~= nil and s.tcp() ~= nil",
        "return io.open('/dev/shm/outside', 'w') ~= nil or io.open('/tmp/outside', 'w') ~= nil",
        "return os.remove('/var/lib/texmf/ls-R') == true",
    ],
)
def test_lua_is_kept_in_its_folder(renderer, attack):
    assert not holds(renderer, attack)


@pytest.mark.parametrize(
    "leaves",
    [
        r"os.remove('program.pdf') lfs.link('/dev/zero', 'program.pdf', true)",
        r"os.remove('program.log') lfs.link('/dev/zero', 'program.aux', true)",
        r"for i = 1, 3000 do lfs.mkdir('d') lfs.chdir('d') end",
        r"for i = 1, 200 do local f = io.open('f' .. i, 'w') f:write('x') f:close() end",
    ],
)
def test_what_lua_leaves_behind_harms_nobody(renderer, leaves):
    need_lua()
    renderer.render(standalone(rf"\directlua{{{leaves}}}x"), "latex")
    at_the_end = rf"x\directlua{{luatexbase.add_to_callback('wrapup_run', function() {leaves} end, 'x')}}"
    renderer.render(standalone(at_the_end), "latex")
    assert draws(renderer, standalone(r"\rule{1in}{1in}", "", "border=0pt")).size == (150, 150)


def test_lua_cannot_poison_what_later_documents_load(renderer):
    """The tables of fonts that luaotfload keeps are programs in Lua."""
    need_lua()
    good = standalone("Text", r"\directlua{}")
    before = draws(renderer, good)
    poison = r"""
        local where = os.getenv('TEXMFCACHE') .. '/luatex-cache/generic/fonts/otl/'
        local n = 0
        for name in lfs.dir(where) do if name:match('lmroman') then
          local f = io.open(where .. name, 'wb')
          if f then f:write('os.exit(1)') f:close() n = n + 1 end
        end end
        return n > 0"""
    assert holds(renderer, poison)  # of its own copy
    assert draws(renderer, good).tobytes() == before.tobytes()


def test_a_process_without_forks():
    """It may become another program, but not start one beside itself; nor may what it becomes."""
    code = """
        import os, subprocess, sys, threading
        import sandbox
        sandbox.filter_system_calls(children=True, forks=False)
        thread = threading.Thread(target=int)
        thread.start(), thread.join()
        for start in (os.fork, lambda: subprocess.run(["true"])):
            try:
                start()
                print("started")
            except OSError:
                print("refused")
        sys.stdout.flush()
        os.execv("/bin/sh", ["sh", "-c", "echo became; /bin/true | /bin/true && echo started"])
    """
    if not sandbox.probe().seccomp:
        pytest.skip("seccomp does not work here")
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=Path(render.__file__).parent
    )
    assert ended.stdout.split() == ["refused", "refused", "became"], ended.stderr
