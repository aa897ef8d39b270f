"""Pictures: vector graphics and PDF pages to pixels, alpha on white, margins cut."""

from __future__ import annotations

from PIL import Image, ImageChops

from languages.protocol import ProgramError
from languages.words import carried, of_pdf_page, with_words

TEXT_SIZE = ":root:not([font-size]) { font-size: 16px }"  # as in a browser; librsvg has 12


def to_rgb(image: Image.Image, max_pixels: int) -> Image.Image:
    """Alpha composited on white, scaled down to `max_pixels`."""
    if image.width * image.height > max_pixels:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        scale = (max_pixels / (image.width * image.height)) ** 0.5
        size = max(1, int(image.width * scale)), max(1, int(image.height * scale))
        image = carried(image, image.resize(size, Image.Resampling.BOX), scale)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return carried(image, white)
    return image if image.mode == "RGB" else image.convert("RGB")


def rasterize_svg(svg: bytes, side: int | None = None, size: tuple[float, float] | None = None) -> Image.Image:
    """librsvg through libvips, RGBA: the longer side becomes `side` px (None: natural size). ProgramError if broken.

    size: the document's own, in px, where the caller knows it better than to a whole number.
    """
    import pyvips

    try:  # of libvips' scale, dpi / 72 is a part
        if size is None:
            natural = pyvips.Image.svgload_buffer(svg, scale=0.75, dpi=96)
            size = natural.width, natural.height
        scale = side / max(size) if side else 1
        picture = pyvips.Image.svgload_buffer(svg, scale=scale * 0.75, dpi=96, stylesheet=TEXT_SIZE)
        image = Image.frombuffer("RGBA", (picture.width, picture.height), picture.write_to_memory())
    except pyvips.Error as error:
        raise ProgramError("svg: " + " ".join(str(error).split())) from None
    wanted = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    return image if image.size == wanted else image.resize(wanted)


def rasterize_pdf(pdf: bytes, max_pixels: int, dpi: int = 150) -> Image.Image:
    """The last page that has something on it, through pdfium; the last one if none has. DaTikZ takes the last one too.
    A page of absurd size is an error, as its picture would be of no use."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(pdf)
        pages = range(len(document) - 1, max(len(document) - 5, -1), -1)
        images = (rasterize_page(document[page], max_pixels, dpi) for page in pages)
        last = next(images)
        if len(document) == 1 or not is_empty(last):
            return last
        return next((image for image in images if not is_empty(image)), last)
    except (pypdfium2.PdfiumError, StopIteration) as error:
        raise ProgramError(f"the PDF has no page that can be drawn: {error}") from None


def rasterize_page(page, max_pixels: int, dpi: int) -> Image.Image:
    width, height = page.get_size()  # points, 1/72 inch
    if not (1 <= width <= 7200 and 1 <= height <= 7200):
        raise ProgramError(f"the page measures {width / 72:.2f} x {height / 72:.2f} inches; 0.02 to 100 are allowed")
    scale = min(dpi / 72, (max_pixels / (width * height)) ** 0.5)
    return with_words(page.render(scale=scale).to_pil().convert("RGB"), of_pdf_page(page, scale))


def is_empty(image: Image.Image) -> bool:
    """Whether a page is white."""
    return all(low >= 250 for low, _ in image.getextrema())


def crop_margins(image: Image.Image, border: int = 8) -> Image.Image:
    """Cut margins of the page's own colour, which all corners have, or else white ones; keep `border` px. A white page
    is an error: there is nothing on it."""
    right, bottom = image.width - 1, image.height - 1
    corners = {image.getpixel(corner) for corner in ((0, 0), (right, 0), (0, bottom), (right, bottom))}
    paper = Image.new("RGB", image.size, corners.pop() if len(corners) == 1 else "white")
    differs = ImageChops.difference(image, paper).convert("L")
    box = Image.eval(differs, lambda value: 255 * (value > 5)).getbbox()
    if box is None and is_empty(image):
        raise ProgramError("the page is empty")
    if box is None:
        return image
    left, top = max(0, box[0] - border), max(0, box[1] - border)
    part = image.crop((left, top, min(image.width, box[2] + border), min(image.height, box[3] + border)))
    return carried(image, part, left=left, top=top)
