"""TeX's packages: which Debian package has what, what a snippet means by a name, letters as commands."""

from __future__ import annotations

import re

# Debian package -> names of its styles, classes, fonts and babel's languages that programs ask for, those in every
# installation left out. TeX has no such list on the disk, nor has Debian without apt-file.
DEBIAN = {
    "texlive-plain-generic": "simplekv ulem soul soulutf8 mathdots iftex xlop genmisc epigram dirtree tikz-nef mdwlist "
    "randomlist listofitems systeme pgf-spectra xint xinttools xintexpr",
    "texlive-pictures": "tikz pgf pgfplots tikz-cd circuitikz forest tikz-feynman tikz-feynhand pgfgantt tkz-euclide "
    "tkz-tab tikz-qtree tikz-dependency tikz-3dplot tikz-network pgf-pie pgfplotstable quantikz qcircuit smartdiagram "
    "xy chemfig tikz-timing pgf-umlsd venndiagram wheelchart",
    "texlive-science": "algorithm algorithmic algpseudocode algorithmicx algorithm2e siunitx physics mhchem stmaryrd "
    "bussproofs bytefield nicematrix",
    "texlive-latex-extra": "standalone tcolorbox enumitem cleveref todonotes adjustbox multirow subfig comment "
    "tabulary threeparttable makecell diagbox arydshln csquotes cancel lipsum blindtext tabularray",
    "texlive-latex-recommended": "beamer listings mathtools booktabs fontspec unicode-math polyglossia microtype "
    "caption subcaption mathrsfs",
    "texlive-fonts-recommended": "marvosym wasysym pifont charter utopia rsfs t1enc eurosym",
    "texlive-fonts-extra": "academicons Alegreya AlegreyaSans anttor arev aurical bbm bbold bbding boisik BOONDOX-cal "
    "boondoxo cabin calligra CormorantGaramond ccicons cfr-lm charis cmbright cmll cochineal concmath "
    "crimson dice3d dictsym doclicense dozenal dsfont dutchcal ebgaramond erewhon esrelation fdsymbol FiraSans "
    "FiraMono fontawesome fontawesome5 fontmfizz fourier frcursive gillius heuristica hieroglf ifsym igo inconsolata "
    "iwona kpfonts kurier lato lexend libertine libertinus linguisticspro lobster2 marcellus mathabx mathdesign "
    "mdsymbol merriweather MnSymbol montserrat newpxmath newpxtext newtxmath newtxtext noto nunito oldstandard "
    "opensans paratype pbsi phaistos PlayfairDisplay plimsoll PTSans PTSerif pxfonts quattrocento raleway roboto "
    "sansmathfonts semaphor simpleicons skull sourcecodepro sourcesanspro sourceserifpro starfont staves stix stix2 "
    "svrsymbols tengwarscript twemojis txfonts universalis urwchancal utfsym XCharter yhmath zlmtt classico",
    "texlive-luatex": "luacode luamplib luatextra luatexbase emoji lua-visual-debug luacolor lualatex-math "
    "luaotfload luapackageloader spelling chickenize",
    "texlive-xetex": "xltxtra xunicode mathspec bidi arabxetex xetexko zhspacing ucharclasses fontwrap realscripts",
    "lmodern": "lmodern",
    "tipa": "tipa tipx vowel",
    "cm-super": "type1ec",
    "texlive-pstricks": "pstricks pst-all pst-plot pst-node auto-pst-pdf pstricks-add pst2pdf bclogo multido",
    "texlive-publishers": "IEEEtran acmart elsarticle llncs revtex4 revtex4-1 revtex4-2 apa6 apa7 moderncv aastex acro "
    "mnras svjour siamltex nature",
    "texlive-humanities": "covington expex gb4e gb4e-emulate linguex qtree tree-dvips synttree dramatist teubner-hum "
    "jura ling-macros philex",
    "texlive-games": "chessboard skak xskak chessfss sudoku havannah hexgame logicpuzzle othello crossword tikz-kart "
    "onedown reverxii rubikcube customdice wargame",
    "texlive-music": "musixtex leadsheets songs gchords guitar musicography harmony piano abc",
    "texlive-bibtex-extra": "biblatex jurabib bibtopic",
    "texlive-lang-german": "ngerman german austrian naustrian nswissgerman swissgerman germanb",
    "texlive-lang-french": "french acadian canadien francais frenchb tdsfrmath tkz-tab-fr facture",
    "texlive-lang-cyrillic": "russian ukrainian bulgarian belarusian serbianc mongolian t2aenc t2benc t2cenc x2enc "
    "cyrtimes disser",
    "texlive-lang-greek": "greek textalpha alphabeta greekdates lgrenc teubner",
    "texlive-lang-spanish": "spanish catalan galician",
    "texlive-lang-italian": "italian",
    "texlive-lang-portuguese": "portuguese brazil brazilian portuges",
    "texlive-lang-polish": "polish polski",
    "texlive-lang-czechslovak": "czech slovak",
    "texlive-lang-european": "dutch swedish danish norsk nynorsk norwegian finnish hungarian magyar romanian croatian "
    "slovene estonian latvian lithuanian albanian icelandic irish welsh turkish",
    "texlive-lang-other": "vietnamese vietnam hebrew thai turkmen azerbaijani indonesian malay esperanto",
    "texlive-lang-arabic": "arabic arabtex arabluatex farsi",
    "texlive-lang-cjk": "CJKpunct",
    "texlive-lang-chinese": "xeCJK ctexhook ctex ctexart ctexrep ctexbook ctexbeamer zhnumber zhlineskip",
    "texlive-lang-japanese": "japanese luatexja luatexja-fontspec bxjsarticle bxcjkjatype jlreq ltjsarticle",
    "texlive-lang-korean": "kotex luatexko",
    "latex-cjk-common": "CJK CJKutf8 CJKnumb CJKulem",
    "latex-cjk-chinese-arphic-gbsn00lp": "gbsn",
    "latex-cjk-chinese-arphic-gkai00mp": "gkai",
    "latex-cjk-chinese-arphic-bsmi00lp": "bsmi",
    "latex-cjk-chinese-arphic-bkai00mp": "bkai",
    "latex-cjk-japanese-wadalab": "min maru goth",
}
WHERE = {name: package for package, names in DEBIAN.items() for name in names.split()}


def debian_package(file: str) -> str:
    """What to install for a file of TeX, or for a language of babel, as words of a sentence."""
    name = re.sub(r"\.(sty|cls|def|ldf|tex|lua|fd)$", "", file)
    package = WHERE.get(name) or ("texlive-pstricks" if name.startswith("pst-") else "")
    return f"apt install {package}" if package else f"`apt-file search /{file}` tells which Debian package has it"


# By their commands three packages for algorithms are told apart: algpseudocode has none of these.
CAPITALS = r"\\(?:STATE|FOR|FORALL|IF|WHILE|REPEAT|REQUIRE|ENSURE|RETURN|COMMENT)\b"
ALGORITHM2E = r"\\(?:Kw[A-Z]\w*|SetAlgo\w+|SetKw\w*|ForEach|eIf|[ul]If|[ul]Else|DontPrintSemicolon|BlankLine)\b"
PSTRICKS = (
    r"\\begin\{pspicture\*?\}|\\ps(?:set|line|frame|circle|ellipse|curve|polygon|dots?|arc|bezier|plot|axes|grid)\b"
)
# What a snippet needs that its author's preamble had -> what is to be loaded. What Image2Struct loads for every answer
# (HELM, `TEX_INCLUDES`) is among them.
SNIPPET_NEEDS = {
    rf"\\begin\{{algorithm\*?\}}(?!(?s:.*){ALGORITHM2E})": "algorithm",
    rf"\\begin\{{algorithmic\}}(?s:.*){CAPITALS}": "algorithmic",
    rf"\\begin\{{algorithmic\}}(?!(?s:.*){CAPITALS})": "algpseudocode",
    ALGORITHM2E: "[ruled]algorithm2e",
    r"\\begin\{forest\}": "forest",
    r"\\begin\{circuitikz\}|\bto ?\[ ?(?:R|C|L|V|I|short|battery\d?|american \w+|european \w+)\b": "circuitikz",
    r"\\begin\{tikzcd\}": "tikz-cd",
    r"\\chemfig\b|\\schemestart\b|\\setchemfig\b": "chemfig",
    r"\\ce\{": "[version=4]mhchem",
    r"\\begin\{lstlisting\}|\\lst\w+\b": "listings",
    r"\\(?:SI|si|unit|num|ang|SIrange)\{|\\qty\{[\d.-]": "siunitx",
    r"\\feynmandiagram|\\begin\{feynman\}": "tikz-feynman",
    r"\\begin\{quantikz\}": "quantikz",
    r"\\Qcircuit\b": "qcircuit",
    r"\\begin\{ganttchart\}": "pgfgantt",
    r"\\begin\{dependency\}": "tikz-dependency",
    r"\\Tree\b": "tikz-qtree",
    r"\\tdplot\w+": "tikz-3dplot",
    r"\\tkzDef\w+|\\tkzDraw\w+": "tkz-euclide",
    r"\\tkzTab\w+": "tkz-tab",
    r"\\(?:Vertex|Edge)\s*[\[({]": "tikz-network",
    r"\\begin\{bytefield\}": "bytefield",
    r"\\begin\{prooftree\}": "bussproofs",
    r"\\smartdiagram\b": "smartdiagram",
    r"\\pie\b": "pgf-pie",
    r"\\pgfplotstable\w+": "pgfplotstable",
    r"\\xymatrix\b": "[all]xy",
    r"\\begin\{tcolorbox\}|\\newtcolorbox|\\tcbox\b|\\tcbset\b": "[most]tcolorbox",
    r"\\begin\{tabularx\}": "tabularx",
    r"\\begin\{tabulary\}": "tabulary",
    r"\\begin\{longtable\}": "longtable",
    r"\\begin\{NiceTabular|\\begin\{.?Nice(?:Matrix|Array)": "nicematrix",
    r"\\begin\{threeparttable\}": "[flushleft]threeparttable",
    r"\\begin\{adjustbox\}|\\adjustbox\b": "adjustbox",
    r"\\begin\{multicols\}": "multicol",
    r"\\begin\{subfigure\}|\\captionof\b|\\captionsetup\b": "caption,subcaption",
    r"\\makecell\b|\\thead\b": "makecell",
    r"\\diagbox\b": "diagbox",
    r"\\(?:row|cell|column)color\b|\\rowcolors\b": "colortbl",
    r"\\hhline\b": "hhline",
    r"\\cdashline\b|\\hdashline\b": "arydshln",
    r"\\enquote\b": "csquotes",
    r"\\(?:uline|sout|uwave)\b": "[normalem]ulem",
    r"\\(?:hl|ul)\{": "soul",
    r"\\(?:cancel|bcancel|xcancel|cancelto)\b": "cancel",
    r"\\(?:bm)\b": "bm",
    r"\\(?:mathclap|coloneqq|prescript|xleftrightarrow|DeclarePairedDelimiter|dcases|shortintertext)\b": "mathtools",
    r"\\begin\{(?:dcases|rcases|multlined|pmatrix\*)": "mathtools",
    r"\\(?:dv|pdv|ket|bra|braket|abs|norm|dd|vb)\b": "physics",
    r"\\mathscr\b": "mathrsfs",
    r"\\mathds\b": "dsfont",
    r"\\mathbbm\b": "bbm",
    r"\\(?:llbracket|rrbracket)\b": "stmaryrd",
    r"\\iddots\b": "mathdots",
    r"\\ding\b": "pifont",
    r"\\fa[A-Z]\w+|\\faIcon\b": "fontawesome5",
    r"\\(?:url|href)\b": "[hidelinks]hyperref",
    r"\\(?:toprule|midrule)\b": "booktabs",
    r"\\begin\{(?:itemize|enumerate)\}\[": "enumitem",
    r"\\lipsum\b": "lipsum",
    r"\\blindtext\b": "blindtext",
    r"\\rotatebox\b|\\includegraphics\b": "graphicx",
    r"\\begin\{(?:theorem|lemma|proof|definition)\}|\\newtheorem": "amsthm",
    r"\\ifthenelse\b": "ifthen",
    r"\\begin\{(?:long|tall)?tblr\}": "tabularray",
    PSTRICKS: "pstricks,pst-plot,pst-node",
    r"\\begin\{tikztimingtable\}|\\texttiming\b": "tikz-timing",
    r"\\begin\{sequencediagram\}": "pgf-umlsd",
    r"\\begin\{venndiagram[23]sets\}": "venndiagram",
    r"\\dirtree\b": "dirtree",
    r"\\wheelchart\b": "wheelchart",
}
# Loaded together where a picture does not work without: which of them is meant cannot be told from a key.
LIBRARIES = r"""
\usetikzlibrary{angles,arrows,arrows.meta,automata,backgrounds,bending,calc,chains,decorations.fractals}
\usetikzlibrary{decorations.footprints,decorations.markings,decorations.pathmorphing,decorations.pathreplacing}
\usetikzlibrary{decorations.shapes,decorations.text,er,fadings,fit,intersections,matrix,mindmap,patterns}
\usetikzlibrary{patterns.meta,perspective,petri,plotmarks,positioning,quotes,scopes,shadings,shadows,shapes,3d}
\usetikzlibrary{shapes.arrows,shapes.callouts,shapes.geometric,shapes.misc,shapes.multipart,shapes.symbols,spy}
\usetikzlibrary{svg.path,through,tikzmark,topaths,trees,turtle,shadows.blur}
\usepgfplotslibrary{colorbrewer,colormaps,dateplot,fillbetween,groupplots,patchplots,polar,smithchart,statistics}
\usepgfplotslibrary{ternary}
"""


ABSENT = "Wanted, but not here:"  # in a log, before the name of a file


def snippet_needs(code: str, error: str, given: str = "") -> str:
    """Lines of a preamble for what a snippet that ended with `error` uses beyond what every snippet gets, `given` among
    them. A package that is not here is passed over, as not all that looks like a package's command is one; it is
    named in the log."""
    needed = [package for pattern, package in SNIPPET_NEEDS.items() if re.search(pattern, code)]
    if re.search(r"Illegal pream-token \([Ss]\)", error):  # columns of a table: S for numbers, s for units
        needed.append("siunitx")
    lines = []
    for package in dict.fromkeys(part for packages in needed for part in re.split(r",(?![^\[]*\])", packages)):
        options, _, name = package.rpartition("]")
        load = rf"\usepackage{options}{']' if options else ''}{{{name}}}"
        lines.append(rf"\IfFileExists{{{name}.sty}}{{{load}}}{{\typeout{{{ABSENT} {name}.sty}}}}")
    if (unknown := re.search(r"Environment ([\w-]+) undefined", error)) and set(lines) <= set(given.split("\n")):
        lines.append(rf"\IfFileExists{{{unknown[1]}.sty}}{{\usepackage{{{unknown[1]}}}}}{{}}")  # many have its name
    strange = "do not know|unknown|not known|cannot (?:find|parse|decide)|please load"
    if re.search(f"(?i){strange}|environment (?:.*axis|groupplot|smithchart) ", error):
        lines.append(LIBRARIES)
    if circuits := re.search(r"\bcircuit (ee IEC|logic (?:US|CDH|IEC))", code):
        lines.append(rf"\usetikzlibrary{{circuits.{circuits[1].replace(' ', '.')}}}")
    return "\n".join(dict.fromkeys("\n".join([given, *lines]).strip().split("\n")))


# ---- letters ---------------------------------------------------------------------------------------------------------

# Letters that pdflatex does not know, as the commands that authors mean by them.
_PAIRS = r"""
α \alpha  β \beta  γ \gamma  δ \delta  ε \varepsilon  ζ \zeta  η \eta  θ \theta  ι \iota  κ \kappa  λ \lambda
μ \mu  ν \nu  ξ \xi  ο o  π \pi  ρ \rho  ς \varsigma  σ \sigma  τ \tau  υ \upsilon  φ \varphi  χ \chi  ψ \psi
ω \omega  ϑ \vartheta  ϕ \phi  ϵ \epsilon  ϱ \varrho  ϖ \varpi  Α A  Β B  Γ \Gamma  Δ \Delta  Ε E  Ζ Z  Η H
Θ \Theta  Ι I  Κ K  Λ \Lambda  Μ M  Ν N  Ξ \Xi  Ο O  Π \Pi  Ρ P  Σ \Sigma  Τ T  Υ \Upsilon  Φ \Phi  Χ X  Ψ \Psi
Ω \Omega  ← \leftarrow  ↑ \uparrow  → \rightarrow  ↓ \downarrow  ↔ \leftrightarrow  ↕ \updownarrow  ↖ \nwarrow
↗ \nearrow  ↘ \searrow  ↙ \swarrow  ↦ \mapsto  ↩ \hookleftarrow  ↪ \hookrightarrow  ↼ \leftharpoonup
⇀ \rightharpoonup  ⇌ \rightleftharpoons  ⇐ \Leftarrow  ⇑ \Uparrow  ⇒ \Rightarrow  ⇓ \Downarrow
⇔ \Leftrightarrow  ⟵ \longleftarrow  ⟶ \longrightarrow  ⟷ \longleftrightarrow  ⟸ \Longleftarrow
⟹ \Longrightarrow  ⟺ \Longleftrightarrow  ⟼ \longmapsto  ↝ \leadsto  ↛ \nrightarrow  ⇝ \rightsquigarrow
↺ \circlearrowleft  ↻ \circlearrowright  ∀ \forall  ∂ \partial  ∃ \exists  ∄ \nexists  ∅ \emptyset  ∆ \Delta
∇ \nabla  ∈ \in  ∉ \notin  ∋ \ni  ∏ \prod  ∐ \coprod  ∑ \sum  − -  ∓ \mp  ∖ \setminus  ∗ \ast  ∘ \circ
∙ \bullet  √ \surd  ∝ \propto  ∞ \infty  ∠ \angle  ∡ \measuredangle  ∢ \sphericalangle  ∣ \mid  ∤ \nmid
∥ \parallel  ∦ \nparallel  ∧ \wedge  ∨ \vee  ∩ \cap  ∪ \cup  ∫ \int  ∬ \iint  ∭ \iiint  ∮ \oint  ∴ \therefore
∵ \because  ∼ \sim  ≁ \nsim  ≃ \simeq  ≅ \cong  ≈ \approx  ≉ \not\approx  ≍ \asymp  ≐ \doteq  ≔ \mathrel{:=}
≕ \mathrel{=:}  ≜ \triangleq  ≠ \neq  ≡ \equiv  ≢ \not\equiv  ≤ \leq  ≥ \geq  ≦ \leqq  ≧ \geqq  ≪ \ll  ≫ \gg
≮ \nless  ≯ \ngtr  ≰ \nleq  ≱ \ngeq  ≲ \lesssim  ≳ \gtrsim  ≺ \prec  ≻ \succ  ≼ \preceq  ≽ \succeq  ⊂ \subset
⊃ \supset  ⊄ \not\subset  ⊆ \subseteq  ⊇ \supseteq  ⊈ \nsubseteq  ⊊ \subsetneq  ⊋ \supsetneq  ⊎ \uplus
⊏ \sqsubset  ⊐ \sqsupset  ⊑ \sqsubseteq  ⊒ \sqsupseteq  ⊓ \sqcap  ⊔ \sqcup  ⊕ \oplus  ⊖ \ominus  ⊗ \otimes
⊘ \oslash  ⊙ \odot  ⊢ \vdash  ⊣ \dashv  ⊤ \top  ⊥ \bot  ⊨ \models  ⊩ \Vdash  ⊲ \vartriangleleft
⊳ \vartriangleright  ⋀ \bigwedge  ⋁ \bigvee  ⋂ \bigcap  ⋃ \bigcup  ⋄ \diamond  ⋅ \cdot  ⋆ \star  ⋈ \bowtie
⋮ \vdots  ⋯ \cdots  ⋰ {\cdot^{\cdot^{\cdot}}}  ⋱ \ddots  ⌈ \lceil  ⌉ \rceil  ⌊ \lfloor  ⌋ \rfloor  ⟨ \langle
⟩ \rangle  ⟦ [\![  ⟧ ]\!]  ℓ \ell  ℏ \hbar  ℑ \Im  ℜ \Re  ℘ \wp  ℵ \aleph  ℝ \mathbb{R}  ℕ \mathbb{N}
ℤ \mathbb{Z}  ℚ \mathbb{Q}  ℂ \mathbb{C}  ℙ \mathbb{P}  𝔼 \mathbb{E}  ℍ \mathbb{H}  𝔽 \mathbb{F}  ℒ \mathcal{L}
ℋ \mathcal{H}  ℱ \mathcal{F}  𝟙 \mathbf{1}  ℯ e  ′ {}^\prime  ″ {}^{\prime\prime}  ‴ {}^{\prime\prime\prime}
■ \blacksquare  □ \square  ▪ \blacksquare  ▫ \square  ▲ \blacktriangle  △ \triangle  ▶ \blacktriangleright
▷ \triangleright  ▼ \blacktriangledown  ▽ \triangledown  ◀ \blacktriangleleft  ◁ \triangleleft  ◆ \blacklozenge
◇ \lozenge  ◊ \lozenge  ○ \bigcirc  ● \bullet  ◦ \circ  ★ \bigstar  ☆ \star  ✓ \checkmark  ✔ \checkmark
✗ \times  ✘ \times  ♠ \spadesuit  ♡ \heartsuit  ♢ \diamondsuit  ♣ \clubsuit  ♥ \heartsuit  ♦ \diamondsuit
♭ \flat  ♮ \natural  ♯ \sharp  † \dagger  ‡ \ddagger  ∎ \blacksquare
"""
LETTERS = dict(zip(_PAIRS.split()[::2], _PAIRS.split()[1::2], strict=True))
SUBSCRIPTS, SUPERSCRIPTS = "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾"


# For xelatex: fonts for letters that Latin Modern does not have, and breaks between Chinese or Japanese ones.
FONTS = r"""\RequirePackage[no-math]{fontspec}\newXeTeXintercharclass\wide\newXeTeXintercharclass\other%
\IfFontExistsTF{WenQuanYi Micro Hei}{\newfontfamily\wideletters{WenQuanYi Micro Hei}[AutoFakeBold=2]}%
{\let\wideletters\relax}%
\IfFontExistsTF{DejaVu Serif}{\newfontfamily\otherletters{DejaVu Serif}}{\let\otherletters\relax}%
\XeTeXinterchartokenstate=1 \XeTeXlinebreaklocale "zh"\XeTeXlinebreakskip=0pt plus 0.5pt
\XeTeXinterchartoks 0 \wide={\begingroup\wideletters}\XeTeXinterchartoks 4095 \wide={\begingroup\wideletters}%
\XeTeXinterchartoks 0 \other={\begingroup\otherletters}\XeTeXinterchartoks 4095 \other={\begingroup\otherletters}%
\XeTeXinterchartoks \wide 0={\endgroup}\XeTeXinterchartoks \wide 4095={\endgroup}%
\XeTeXinterchartoks \other 0={\endgroup}\XeTeXinterchartoks \other 4095={\endgroup}%
\XeTeXinterchartoks \wide\other={\endgroup\begingroup\otherletters}%
\XeTeXinterchartoks \other\wide={\endgroup\begingroup\wideletters}"""


def is_wide(letter: str) -> bool:
    """Whether a letter is Chinese, Japanese or Korean, or goes with these."""
    return bool(
        re.match(
            "[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef]", letter
        )
    )


def with_letters(code: str, xelatex: bool = False) -> str:
    """A document with raised and lowered digits as formulas, and its other LETTERS declared: for pdflatex always, for
    xelatex, which has fonts for text, in formulas."""
    for digits, sign in ((SUBSCRIPTS, "_"), (SUPERSCRIPTS, "^")):
        meant = str.maketrans(digits, "0123456789+-=()")
        code = re.sub(f"[{digits}]+", lambda run: rf"\ensuremath{{{sign}{{{run[0].translate(meant)}}}}}", code)  # noqa: B023
    used = r"\RequirePackage{amsmath,amssymb}"
    if xelatex:
        code = re.sub(r"\\usepackage\s*\[[^\]]*\]\s*\{fontenc\}", "", code)  # of fonts with 256 letters
        used += FONTS.replace("%\n", "").replace("\n", " ")
        for letter in set(code) & set(LETTERS):  # signs; Greek may also be text
            if ord(letter) >= 0x2070:
                code = code.replace(letter, rf"\ensuremath{{{LETTERS[letter]}}}")
    for letter in sorted(set(code)):
        point, command = f"{ord(letter):04X}", LETTERS.get(letter, rf"\text{{{letter}}}")
        if xelatex and ord(letter) >= 0x250 and not 0x2000 <= ord(letter) < 0x2070:
            used += rf'\XeTeXcharclass"{point}=\{"wide" if is_wide(letter) else "other"}\mathcode"{point}="8000 '
            used += rf'\begingroup\lccode`\~="{point} \lowercase{{\endgroup\def~}}{{{command}}}'
        elif not xelatex and letter in LETTERS:
            used += rf"\DeclareUnicodeCharacter{{{point}}}{{\ensuremath{{{command}}}}}"
    return rf"\AddToHook{{begindocument/before}}{{{used}}}" + code
