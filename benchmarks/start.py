"""How soon training begins: seconds from the command to the end of the first SFT step, and memory.

    python benchmarks/start.py                     # 24 rows, then 200,000 in row groups of 1,000, then all in one group

The tiny model on a CPU. What 24 rows take is the start of Python, torch and the model; the rest is what rows cost.
Memory is the greatest resident set of the whole run of three steps, and CPU seconds are all of it, as the kernel counts
them. Writes results/start.json.
"""

import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow
import pyarrow.parquet
import tyro
from PIL import Image, ImageDraw

ROOT = Path(__file__).parent.parent
SHAPE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">\n<circle cx="{}" cy="{}" r="{}" fill="{}"/>\n</svg>'
)
COLOURS = ("red", "teal", "navy", "orange", "purple")


@dataclass
class Config:
    rows: int = 200_000
    """Rows of the large sets."""
    out: Path = ROOT / "results" / "start.json"
    """Where the figures go."""


def make_rows(count: int) -> pyarrow.Table:
    """Circles of 64 px, most of them different."""
    chosen, table = random.Random(0), {"user_content": [], "assistant_content": [], "image": []}
    pictures: dict[tuple, bytes] = {}
    for _ in range(count):
        circle = (chosen.randint(8, 56), chosen.randint(8, 56), chosen.randint(4, 8), chosen.choice(COLOURS))
        if circle not in pictures:
            x, y, r, colour = circle
            image, file = Image.new("RGB", (64, 64), "white"), io.BytesIO()
            ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=colour)
            image.save(file, "PNG")
            pictures[circle] = file.getvalue()
        table["user_content"].append("<image>\nWrite SVG code that draws this picture.")
        table["assistant_content"].append(f"```svg\n{SHAPE.format(*circle)}\n```")
        table["image"].append(pictures[circle])
    return pyarrow.table(table)


def first_step(model: Path, rows: Path, out: Path) -> dict:
    """Three steps of SFT -> seconds to the end of the first, MiB at most."""
    command = [sys.executable, ROOT / "train_sft.py", "tiny", "--model", model, "--data", rows, "--out", out]
    metrics, started = out / "metrics.jsonl", time.perf_counter()
    process = subprocess.Popen([*map(str, command), "--steps", "3"], stderr=subprocess.DEVNULL, cwd=ROOT)
    while not (metrics.exists() and metrics.stat().st_size):
        if process.poll() is not None:
            raise RuntimeError(f"training ended with {process.returncode} before its first step")
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"training ended with {os.waitstatus_to_exitcode(status)}")
    cpu = round(usage.ru_utime + usage.ru_stime, 1)
    return {"seconds": round(seconds, 1), "cpu_seconds_of_the_run": cpu, "peak_mib": round(usage.ru_maxrss / 1024)}


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    result = {"date": date.today().isoformat(), "cores": os.cpu_count(), "rows": config.rows}
    result["load_before"] = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        made = [sys.executable, str(ROOT / "model.py"), "create", str(folder / "model")]
        subprocess.run(made, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        table = make_rows(config.rows)
        sets = {"24 rows": (24, 24), f"{config.rows} rows in groups of 1000": (config.rows, 1000)}
        sets[f"{config.rows} rows in one group"] = (config.rows, config.rows)
        for number, (name, (count, group)) in enumerate(sets.items()):
            path = folder / f"{number}.parquet"
            options = {"row_group_size": group, "use_dictionary": ["user_content"]}
            pyarrow.parquet.write_table(table.slice(0, count), path, **options)
            result[name] = {"mib_of_file": round(path.stat().st_size / 2**20, 1)}
            result[name] |= first_step(folder / "model", path, folder / f"run-{number}")
            print(f"{name}: {result[name]}")
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
