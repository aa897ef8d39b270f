"""Pictures of data sets: the sample that each belongs to; from bytes or a file, on white, blank or not."""

import base64
import io
import struct
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
from PIL import Image, ImageOps

ORIENTATION = 0x0112  # EXIF's tag
OVERSHOOT = 0.01  # of the range of shades, as resampling leaves it


@dataclass
class Sample:
    """One target picture. `prompt` is all that the user says besides it; a refinement repeats its `draft` there."""

    id: str  # for people: several samples may have the same
    domain: str
    language: str
    image: Image.Image | None  # RGB; None where the target has still to be rendered from `code`
    prompt: str
    code: str | None = None
    draft: str | None = None
    system: str = ""  # what the system says before the user does


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB copy with transparency composited on white, whatever the mode. Raises ValueError for numbers that are no
    shades."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return eight_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def eight_bits(image: Image.Image) -> Image.Image:
    """A grey picture of 16 or 32 bits a pixel as 8 bits, which Pillow cuts off instead: 16 bits times 1 / 257; of 32
    bits the range of the numbers says whether white is 1 (of fractions), 255 or 65,535. What is OVERSHOOT beyond black
    or white is black or white.

    Raises ValueError where it says none of them: a largest number below a sixteenth of white may be anything, shades
    of 12 bits or a height."""
    shades = np.asarray(image).astype(np.float64)
    low, high = (float(shades.min()), float(shades.max())) if shades.size else (0.0, 0.0)
    whites = (1, 255, 65535) if image.mode == "F" else (255, 65535)
    if image.mode.startswith("I;16") or image.format == "PPM":  # which Pillow makes 16 bits
        whites = (65535,)
    white = next((white for white in whites if high <= white * (1 + OVERSHOOT)), None)  # None also of NaN
    if white is None or low < -OVERSHOOT * white or (white != whites[0] and high < white / 16):
        raise ValueError(f"its numbers go from {low:g} to {high:g}; write shades of 8 or 16 bits")
    shades = np.rint(np.clip(shades, 0, white) * (255 / white)).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):  # of a PNG: the shade that is see-through
        shades[np.asarray(image) == clear] = 255
    return Image.fromarray(shades)


def is_blank(image: Image.Image) -> bool:
    """Whether it has a single colour."""
    return all(low == high for low, high in image.convert("RGB").getextrema())


def upright(image: Image.Image) -> Image.Image:
    """As a camera says that it was held (EXIF), which `datasets` and transformers turn it by."""
    try:
        return ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error):  # broken EXIF beside a whole picture
        return image


def read_picture(value, folder: Path) -> Image.Image:
    """RGB on white, upright, from what data sets hold: bytes, also as a list of numbers, a path relative to `folder`,
    base64 with or without "data:image/..;base64," before it, {"bytes": .., "path": ..}, or a list with one of these."""
    source = _bytes_or_path(value, folder)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return to_rgb(upright(image)).copy()
    except Exception as error:  # Pillow raises a dozen types on hostile bytes
        what = "they are no format that Pillow knows" if isinstance(error, Image.UnidentifiedImageError) else error
        raise ValueError(f"the picture cannot be decoded ({what}); remove the row or write the picture again") from None


def _bytes_or_path(value, folder: Path) -> bytes | Path:
    """Raises ValueError, without what may be megabytes of it."""
    if isinstance(value, list | tuple):
        if len(value) > 1 and all(isinstance(byte, int) and 0 <= byte < 256 for byte in value):
            return bytes(value)
        if len(value) != 1:
            raise ValueError(f"has {len(value)} pictures where one is needed; keep rows with one picture")
        return _bytes_or_path(value[0], folder)
    if isinstance(value, dict):
        value = next((value[key] for key in ("bytes", "path", "image", "url", "image_url") if value.get(key)), None)
        if isinstance(value, dict | list):
            return _bytes_or_path(value, folder)
    if isinstance(value, bytearray | memoryview):
        value = bytes(value)
    if not value or not isinstance(value, bytes | str):
        raise ValueError("has no picture; give PNG or JPEG bytes, or the path of a file")
    return value if isinstance(value, bytes) else _from_text(value, folder)


def _from_text(text: str, folder: Path) -> bytes | Path:
    """The file that a path or a file:// address names, or what base64 stands for, also its kind for addresses (- and _)
    and without = at its end."""
    shown = f"{text[:60]}.., {len(text)} characters" if len(text) > 200 else text
    if text.startswith(("http://", "https://")):
        raise ValueError(f"the picture is on the web ({shown}); download it and give the path of the file")
    path = folder / (unquote(urlparse(text).path) if text.startswith("file://") else text)
    if len(text) < 4096 and "\0" not in text and len(path.name.encode(errors="replace")) < 256 and path.is_file():
        return path
    is_uri = text.startswith("data:")
    digits = unquote(text.partition(",")[2]) if is_uri else text
    digits = "".join(digits.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        content = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError:
        content = b""
    if is_uri and not content:
        raise ValueError(f"the picture cannot be decoded (it is no whole base64: {shown}); write the picture again")
    may_be_path = not is_uri and len(text) < 256  # which may well be base64 of something
    if not content or (may_be_path and not _is_picture(content)):
        raise ValueError(f"the picture does not exist ({folder / shown}); paths are relative to the data file")
    return content


def _is_picture(content: bytes) -> bool:
    """Whether it begins as one, whole or not."""
    try:
        with Image.open(io.BytesIO(content)):
            return True
    except Exception as error:  # Pillow raises a dozen types on hostile bytes
        return not isinstance(error, Image.UnidentifiedImageError)


def png_bytes(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
