"""The text blocks of a web page without reading letters: Design2Code's recolouring (arXiv 2403.03163).

Runs inside the sandboxed browser worker. All backgrounds are made transparent and every element that holds
text gets a colour of its own, in two versions 50 steps apart; a pixel that follows is text, and whose it is its colour
says (`ocr_free_utils.py`). Departures: the styles are set in the loaded page instead of its source, so that all three
screenshots show one document; a colour beyond the grid's 4,096 is not given instead of failing.
"""

from __future__ import annotations

import numpy as np

SHIFT, NEAR, CLOSE, MOST = 50, 4, 8, 1000
TAGS = "p h1 h2 h3 h4 h5 h6 div span a b li table td th button footer header figcaption"
RECOLOUR = """((shift) => {
    const tags = new Set("TAGS".split(" ")), grid = [];
    for (let r = 10; r < 251; r += 16) for (let g = 10; g < 251; g += 16) for (let b = 10; b < 251; b += 16)
        grid.push([r, g, b]);
    const set = (element, name, value) => element.style && element.style.setProperty(name, value, "important");
    for (const element of document.getElementsByTagName("*")) {
        set(element, "background-color", "rgba(255, 255, 255, 0)");
        set(element, "transition", "none");
    }
    const given = new Map();
    for (const element of document.getElementsByTagName("*")) {
        if (!tags.has(element.localName) || !grid.length) continue;
        const colour = grid.pop();
        given.set(element, colour);
        set(element, "color", "rgb(" + colour.map((c) => (c + shift) % 256).join(",") + ")");
        set(element, "opacity", "1");
    }
    const texts = [], walker = document.createTreeWalker(document.body || document, NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode()) && texts.length < MOST;) {
        const text = node.data.trim();
        let owner = node.parentElement;
        if (!text || !owner || ["script", "style"].includes(owner.localName)) continue;
        while (owner && !given.has(owner)) owner = owner.parentElement;
        if (owner) texts.push([text.toLowerCase().slice(0, 2000), given.get(owner)]);
    }
    return texts;
})""".replace("TAGS", TAGS).replace("MOST", str(MOST))


def blocks(screenshot, evaluate) -> list[dict]:
    """[{"text", "box": [x, y, width, height] as fractions, "colour": [r, g, b]}] of the page that is shown.

    screenshot() gives an RGB picture of it; evaluate(expression) runs script in a world of its own and gives its value.
    """
    page = np.asarray(screenshot().convert("RGB"))
    texts = evaluate(f"{RECOLOUR}(0)")
    first = np.asarray(screenshot().convert("RGB")).astype(np.int16)
    evaluate(f"{RECOLOUR}({SHIFT})")
    second = np.asarray(screenshot().convert("RGB")).astype(np.int16)
    if first.shape != second.shape or first.shape != page.shape:
        return []
    is_text = (np.abs((first + SHIFT) % 256 - second) <= CLOSE).all(2)
    return found_blocks(texts, first, is_text, page)


def found_blocks(texts, coloured: np.ndarray, is_text: np.ndarray, page: np.ndarray) -> list[dict]:
    """coloured, page: (H, W, 3); is_text: (H, W). A text's block are the text pixels within 4 steps of its colour."""
    height, width = is_text.shape
    rows, columns = np.nonzero(is_text)
    # text pixels by the grid's colour they are next to, so that each is looked at once: 10 + 16 k, and 4 around it
    colours = coloured[rows, columns]
    cell = (colours - 10 + 8) // 16
    near = (np.abs(colours - (10 + 16 * cell)) <= NEAR).all(1) & (cell >= 0).all(1) & (cell < 16).all(1)
    rows, columns, cell = rows[near], columns[near], cell[near]
    key = (cell[:, 0] * 16 + cell[:, 1]) * 16 + cell[:, 2]
    order = np.argsort(key, kind="stable")
    rows, columns, key = rows[order], columns[order], key[order]
    result = []
    for text, colour in texts:
        r, g, b = ((c - 10) // 16 for c in colour)
        start, end = np.searchsorted(key, [(r * 16 + g) * 16 + b, (r * 16 + g) * 16 + b + 1])
        if start == end:
            continue
        y, x = rows[start:end], columns[start:end]
        top, left = int(y.min()), int(x.min())
        box = [left / width, top / height, (int(x.max()) - left + 1) / width, (int(y.max()) - top + 1) / height]
        mean = page[y, x].mean(0).astype(int).tolist()
        result.append({"text": text, "box": box, "colour": mean})
    return result
