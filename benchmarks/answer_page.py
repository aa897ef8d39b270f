"""The page of answer.py in a real Chromium, a picture dropped onto it: a screenshot, and how long one waits.

    python benchmarks/answer_page.py picture.png --model runs/demo/virl --out results/answer_page.png

`answer.py --serve` is started as a user would. First words: from the drop until the program begins to be seen. Done:
until it is drawn and scored.
"""

import base64
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from languages.browser import chromium_path  # noqa: E402

DROP = """([base64, name]) => {
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0)), data = new DataTransfer();
    data.items.add(new File([bytes], name));
    document.getElementById("drop").dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer: data }));
}"""


@dataclass
class Config:
    """Photograph the page with an answered picture."""

    picture: tyro.conf.Positional[Path]
    """What is dropped onto the page."""
    model: str
    """As answer.py takes it."""
    out: Path = Path("results/answer_page.png")
    """The screenshot."""
    scheme: Literal["light", "dark"] = "light"
    """Colours of the page."""
    best_of: int = 1
    """Answers to choose from."""
    refine: int = 0
    """Rounds of correction."""


def waited(tab, expression: str) -> float:
    """Seconds until it is true."""
    began = time.perf_counter()
    while not tab.evaluate(expression):
        time.sleep(0.01)
    return time.perf_counter() - began


def main(config: Config) -> None:
    from playwright.sync_api import sync_playwright  # a second to import, which `--help` does without

    command = [sys.executable, str(ROOT / "answer.py"), "--serve", "--port", "0", "--model", config.model]
    command += ["--best-of", str(config.best_of), "--refine", str(config.refine)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        words = server.stdout.readline().split()
        if not words:
            sys.exit("answer_page.py: answer.py did not start.")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium_path(), args=["--no-sandbox", "--disable-gpu"]
            )
            screen = {"viewport": {"width": 1280, "height": 900}, "color_scheme": config.scheme}
            tab = browser.new_context(**screen).new_page()
            tab.goto(words[1])
            tab.evaluate(DROP, [base64.b64encode(config.picture.read_bytes()).decode(), config.picture.name])
            begun = waited(tab, "document.getElementById('code').value !== '' || running === null")
            done = begun + waited(tab, "running === null")
            config.out.parent.mkdir(parents=True, exist_ok=True)
            tab.screenshot(path=config.out, full_page=True)
            print(f"first words after {begun:.2f} s, done after {done:.2f} s: {tab.text_content('#status')}")
            print(f"wrote {config.out}")
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
