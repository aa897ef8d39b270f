"""The card of a corpus: what it was built from, what was left out at every stage and why, what is in it."""

import json
import re
from collections import Counter
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from corpus.checks import RUFF_RULES
from corpus.drafts import KINDS, TRIES
from corpus.options import UNBOUND, replace_file
from languages.python import packages_of
from render import interpreter

STAGES = ("read", "check", "render", "compare", "draft", "evaluation", "duplicate", "balance")


def write_card(config, sources: list, chosen, chunks: list[Path]) -> None:
    """OUT/card.md, the last file that a build writes. chosen: publish.Chosen."""
    reports = [json.loads(path.with_suffix(".json").read_text()) for path in chunks]
    rows = sum(report["rows"] for report in reports)
    rejects = [reject for report in reports for reject in report["rejects"]]
    counts = Counter(reject["stage"] for reject in rejects) + chosen.counts
    drafts: Counter = Counter()
    for report in reports:
        for language, when, outcome, count in report["drafts"]:
            drafts[language, when, outcome] += count
    lines = [
        "# Card of a corpus",
        "",
        "Made by `python -m corpus build`. The same sources and options give it again.",
        "",
    ]
    lines += _sources(sources, chunks, reports, chosen) + _stages(rows, counts, rejects) + _contents(chosen)
    lines += _drafts(drafts, chosen, config) + _options(config)
    replace_file(Path(config.out) / "card.md", "\n".join(lines) + "\n")


def _sources(sources: list, chunks: list[Path], reports: list[dict], chosen) -> list[str]:
    read: Counter = Counter()
    for path, report in zip(chunks, reports, strict=True):
        read[int(path.name.split("-")[0])] += report["rows"]
    lines = ["## Sources", "", "| path | schema | rows |", "|---|---|---|"]
    lines += [f"| {source.path} | {source.schema} | {read[number]} |" for number, source in enumerate(sources)]
    licenses = Counter(chosen.licenses[number] for number in chosen.direct if number in chosen.licenses)
    told = "; ".join(f"{license}: {count}" for license, count in sorted(licenses.items()))
    told = f"Rows say their licence and their source. Direct rows by licence: {told}." if told else ""
    return [*lines, "", told or "Licences are those of the sources; this build knows nothing about them.", ""]


def _stages(rows: int, counts: Counter, rejects: list[dict]) -> list[str]:
    lines = ["## Stages", "", "| stage | left out | left |", "|---|---|---|", f"| rows read | | {rows} |"]
    left = rows
    for stage in STAGES:
        left -= counts[stage]
        lines.append(f"| {stage} | {counts[stage]} | {left} |")
    reasons = Counter((reject["stage"], re.sub(r"\d+", "N", reject["reason"])[:90]) for reject in rejects)
    lines += ["", "Most frequent reasons; every row is in `rejects.jsonl`:", ""]
    often = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:20]
    return [*lines, *(f"- {count} x {stage}: {reason}" for (stage, reason), count in often), ""]


def _contents(chosen) -> list[str]:
    kept: Counter = Counter(chosen.groups[number] for number in chosen.direct)
    prompts: Counter = Counter(chosen.groups[number][0] for number in chosen.rl)
    lines = ["## Contents", "", f"{len(chosen.direct)} direct rows, {len(chosen.refine)} refinement rows, "]
    lines[-1] += f"{len(chosen.rl)} RL prompts (chosen from the direct rows)."
    lines += ["", "| domain | short | middle | long | direct | RL |", "|---|---|---|---|---|---|"]
    for domain in sorted({domain for domain, _ in kept}):
        sizes = [kept[domain, length] for length in ("short", "middle", "long")]
        lines.append(f"| {domain} | {' | '.join(map(str, sizes))} | {sum(sizes)} | {prompts[domain]} |")
    return [*lines, "", "Short: less than 300 words and signs; middle: less than 1,200.", ""]


def _drafts(drafts: Counter, chosen, config) -> list[str]:
    lines = ["## Refinement drafts", "", f"Kinds of flaw: {', '.join(KINDS)}. A draft is a flawed program that "]
    lines[-1] += f"rendered and whose picture scores {config.band[0]:g} to {config.band[1]:g} against the target. "
    lines[-1] += f"A row tries at most {TRIES} proposals, each steered by the last one's score, until it has one."
    lines += [
        "",
        "| language | rows tried | drafts | proposals | rendered | in the band | too alike | too far | a draft |",
    ]
    lines += ["|---" * 9 + "|"]
    for language in sorted({language for language, _, _ in drafts}):
        tried = {what: count for (of, when, what), count in drafts.items() if of == language and when == "done"}
        said: Counter = Counter()
        for (of, when, what), count in drafts.items():
            said[what] += count if of == language and when != "done" else 0
        total, kept = sum(said.values()), tried.get("kept", 0)
        shown = [sum(tried.values()), kept, total, total - said["failed"]]
        shown += [said["in the band"], said["too alike"], said["too far"]]
        lines.append(f"| {language} | {' | '.join(map(str, shown))} | {total / max(1, kept):.2f} |")
    lines += ["", "The last column: proposals a draft."]
    kinds = sorted({kind for _, kind in chosen.kinds})
    lines += ["", f"| rows with | {' | '.join(kinds)} |", "|---" * (1 + len(kinds)) + "|"] if kinds else []
    for language in sorted({language for language, _ in chosen.kinds}):
        lines.append(f"| {language} | {' | '.join(str(chosen.kinds[language, kind]) for kind in kinds)} |")
    return [*lines, ""]


def _options(config) -> list[str]:
    options = {key: value for key, value in asdict(config).items() if key not in (*UNBOUND, "paths")}
    drawing = ("matplotlib", "numpy", "pandas", "rdkit", "epam.indigo", "pyvips-binary")
    packages = [package for package in packages_of(interpreter())[0] if package.split()[0] in drawing]
    packages += [f"{package} {version(package)}" for package in ("playwright", "ruff", "pyarrow")]
    lines = ["## Options", "", *(f"- {key}: {value}" for key, value in options.items())]
    lines += [f"- rules of ruff: {RUFF_RULES}", "", "## Versions", ""]
    return [*lines, *(f"- {package}" for package in packages)]
