"""Which metrics there are, for what, from where, and what each needs: the list that scoring, tables, README share."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    label: str
    family: str
    """chart, html, svg, latex or molecule; any: every target."""
    needs: str
    """nothing; reference: the target's program; picture: the target's picture; else the flag that names the weights."""
    source: str
    failed: float | None = 0.0
    """What an answer without a rendering counts; None: its code is measured all the same."""
    lower_is_better: bool = False


JUDGE, PROGRAM = "--judge-url", "the target's program"
ALEXNET, VGG16 = "--lpips with AlexNet", "--lpips with VGG16"
HERE = ("nothing", "reference", "picture")
METRICS = {
    "execute": Metric("execute rate", "any", "nothing", "all benchmarks"),
    "visual": Metric("visual score", "any", "picture", "reward.py"),
    "ssim": Metric("SSIM", "any", "picture", "Wang et al. 2004"),
    "chartmimic.text_f1": Metric("text F1", "chart", "reference", "ChartMimic"),
    "chartmimic.layout_f1": Metric("layout F1", "chart", "reference", "ChartMimic"),
    "chartmimic.type_f1": Metric("type F1", "chart", "reference", "ChartMimic"),
    "chartmimic.colour_f1": Metric("colour F1", "chart", "reference", "ChartMimic"),
    "chartmimic.low_level": Metric("low level", "chart", "reference", "ChartMimic"),
    "chartmimic.high_level": Metric("high level", "chart", JUDGE, "ChartMimic"),
    "chartmimic.overall": Metric("overall", "chart", f"{JUDGE} and {PROGRAM}", "ChartMimic"),
    "plot2code.text_match": Metric("text match", "chart", "reference", "Plot2Code"),
    "plot2code.rating": Metric("rating (1 to 10)", "chart", JUDGE, "Plot2Code"),
    "design2code.block_match": Metric("block match", "html", "reference", "Design2Code"),
    "design2code.text": Metric("text", "html", "reference", "Design2Code"),
    "design2code.position": Metric("position", "html", "reference", "Design2Code"),
    "design2code.colour": Metric("colour", "html", "reference", "Design2Code"),
    "design2code.low_level": Metric("low level", "html", "reference", "Design2Code"),
    "design2code.clip": Metric("CLIP", "html", "--clip", "Design2Code"),
    "design2code.final": Metric("final", "html", f"--clip and {PROGRAM}", "Design2Code"),
    "webcode2m.tree_bleu": Metric("TreeBLEU", "html", "reference", "WebCode2M", None),
    "webcode2m.word_recall": Metric("word recall", "html", "reference", "WebCode2M", None),
    "web2code.visual_structure": Metric("visual structure", "html", JUDGE, "Web2Code"),
    "web2code.colour": Metric("colour and aesthetics", "html", JUDGE, "Web2Code"),
    "web2code.text": Metric("text and content", "html", JUDGE, "Web2Code"),
    "web2code.interface": Metric("user interface", "html", JUDGE, "Web2Code"),
    "unisvg.ssim": Metric("SSIM", "svg", "picture", "UniSVG"),
    "unisvg.psnr": Metric("PSNR (dB)", "svg", "picture", "UniSVG"),
    "unisvg.lpips": Metric("LPIPS", "svg", ALEXNET, "UniSVG", 1.0, True),
    "unisvg.clip": Metric("CLIP", "svg", "--clip", "UniSVG"),
    "unisvg.score": Metric("score", "svg", f"--clip and {ALEXNET}", "UniSVG"),
    "starvector.mse": Metric("MSE", "svg", "picture", "StarVector", None, True),
    "starvector.masked_mse": Metric("masked MSE", "svg", "picture", "StarVector", None, True),
    "starvector.ssim": Metric("SSIM", "svg", "picture", "StarVector", None),
    "starvector.dino": Metric("DINO", "svg", "--dino", "StarVector"),
    "starvector.lpips": Metric("LPIPS", "svg", VGG16, "StarVector", None, True),
    "image2struct.ems": Metric("EMS", "latex", "picture", "Image2Struct"),
    "image2struct.ssim": Metric("SSIM", "latex", "picture", "Image2Struct"),
    "image2struct.edit_similarity": Metric("edit similarity", "latex", "reference", "Image2Struct"),
    "detikzify.tex_edit_distance": Metric("TeX edit distance", "latex", "reference", "DeTikZify", None, True),
    "chemdraw.validity": Metric("validity", "molecule", "nothing", "ChemDraw"),
    "chemdraw.tanimoto": Metric("Tanimoto over all", "molecule", "reference", "ChemDraw"),
    "chemdraw.tanimoto_valid": Metric("Tanimoto over valid ones", "molecule", "reference", "ChemDraw", None),
    "chemdraw.same_molecule": Metric("same molecule", "molecule", "reference", "ChemDraw"),
}
FAMILIES = ("chart", "html", "svg", "latex", "molecule")


def missing_of(families: set[str], measured: set[str]) -> dict[str, str]:
    """{metric: what it needs} of the metrics of these families that want weights or a judge and were not measured."""
    wanted = {name: m for name, m in METRICS.items() if m.family in families and m.needs not in HERE}
    return {name: metric.needs for name, metric in wanted.items() if name not in measured}


def table() -> str:
    """Markdown, for README."""
    lines = ["| from | metrics | for | needs |", "|---|---|---|---|"]
    rows: dict[tuple, list[str]] = {}
    for metric in METRICS.values():
        rows.setdefault((metric.source, metric.family, metric.needs), []).append(metric.label)
    says = {"reference": PROGRAM, "picture": "the target's picture"}
    for (source, family, needs), labels in rows.items():
        needs = says.get(needs, re.sub(r"--[a-z-]+", r"`\g<0>`", needs))
        lines.append(f"| {source} | {', '.join(labels)} | {family} | {needs} |")
    return "\n".join(lines)
