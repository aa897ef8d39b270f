"""One self-contained offline html page, in which nothing that a model wrote can run.

`write_page` fills page.html with JSON. Four walls: texts travel as ASCII JSON in which `<` is escaped, so
none can end its data block; the page inserts them through textContent only; pictures are rasters made here, never a
model's svg; and the content security policy allows the page's own script and style by hash and no network at all.
"""

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

TEMPLATE = Path(__file__).with_name("page.html")


def data_uri(kind: str, content: bytes) -> str:
    """A picture file (kind "png" or "jpeg") as a URI that needs no network."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def thumbnail(image: Image.Image, side: int = 256) -> tuple[int, int, str]:
    """(width, height, data URI) of a picture of at most `side` px: PNG, or JPEG where that saves much."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    png = _encode(small, "png", optimize=True)
    jpeg = _encode(small, "jpeg", quality=85) if len(png) > 6000 else png
    return *small.size, data_uri("png", png) if len(png) <= len(jpeg) else data_uri("jpeg", jpeg)


def _encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def content_policy(page: str) -> str:
    """The content security policy of a page: its own script and style, by hash, and pictures that are in it."""
    policy = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'"
    for tag in ("script", "style"):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        policy += f"; {tag}-src 'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'"
    return policy


def _json_block(id: str, value) -> str:
    text = json.dumps(value).replace("<", "\\u003c")
    return f'<script type="application/json" id="{id}">{text}</script>'


def write_page(path: str | Path, title: str, index: dict, details: Sequence[dict]) -> None:
    """Write the page. index: what sorting, filtering and the summary need; details[i]: the rest of target i, which the
    page parses when its card comes into view."""
    page = TEMPLATE.read_text(encoding="utf-8")
    policy = content_policy(page)
    blocks = [_json_block("index", index), *(_json_block(f"t{i}", detail) for i, detail in enumerate(details))]
    parts = {"title": html.escape(title), "csp": policy, "data": "\n".join(blocks)}
    page = re.sub(r"\{\{(title|csp|data)\}\}", lambda match: parts[match[1]], page)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(page, encoding="utf-8", newline="\n")
