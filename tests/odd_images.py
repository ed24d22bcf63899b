"""Images of every odd kind, the pixels that they must give, and files that are no whole image."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from deploypipe.serve.service.images import MAX_PIXELS

GREY = np.arange(784, dtype=np.uint16).reshape(28, 28) % 256
RAMP = GREY.astype(np.uint8)


def image_file(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _two_colours(mode: str, first: Any, second: Any) -> Image.Image:
    image = Image.new(mode, (28, 28), first)
    image.paste(second, (14, 0, 28, 28))
    return image


def _palette() -> Image.Image:
    image = Image.fromarray(RAMP % 4, "L").convert("P")
    image.putpalette([0, 0, 0, 10, 10, 10, 20, 20, 20, 30, 30, 30])
    return image


def _animated(format: str) -> bytes:
    frames = [Image.new("L", (28, 28), 80), Image.new("L", (28, 28), 160)]
    return image_file(frames[0], format, save_all=True, append_images=frames[1:], **({"lossless": True}))


def _sideways() -> bytes:
    """Stored turned by 90 degrees, with the EXIF entry that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    return image_file(Image.fromarray(RAMP).transpose(Image.Transpose.ROTATE_90), exif=exif)


SIXTEEN = GREY * 256 + 255 - GREY  # the upper 8 bits are RAMP
HALVES = np.repeat([[0] * 14 + [255] * 14], 28, 0)


def _png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header declares a size, and whose data is a few bytes: a bomb if anyone allocates for it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


WHOLE = image_file(Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)))

IMAGES: dict[str, tuple[bytes, np.ndarray, int]] = {
    "PNG": (image_file(Image.fromarray(RAMP)), RAMP, 0),
    "BMP": (image_file(Image.fromarray(RAMP), "BMP"), RAMP, 0),
    "TIFF": (image_file(Image.fromarray(RAMP), "TIFF"), RAMP, 0),
    "PPM": (image_file(Image.fromarray(RAMP), "PPM"), RAMP, 0),
    "GIF": (image_file(Image.fromarray(RAMP), "GIF"), RAMP, 0),
    "WebP": (image_file(Image.fromarray(RAMP).convert("RGB"), "WEBP", lossless=True), RAMP, 0),
    "JPEG": (image_file(Image.fromarray(HALVES.astype(np.uint8)), "JPEG", quality=100), HALVES, 3),
    "RGB": (image_file(Image.fromarray(RAMP).convert("RGB")), RAMP, 0),
    "red": (image_file(_two_colours("RGB", (0, 0, 0), (255, 0, 0))), HALVES * 76 // 255, 1),  # ITU-R 601: 0.299 red,
    "palette": (image_file(_palette()), RAMP % 4 * 10, 0),
    "1 bit": (image_file(_two_colours("1", 0, 1)), HALVES, 0),
    "16 bit PNG": (image_file(Image.fromarray(SIXTEEN)), RAMP, 0),
    "16 bit TIFF": (image_file(Image.fromarray(SIXTEEN), "TIFF"), RAMP, 0),
    "transparent is black": (image_file(_two_colours("RGBA", (255, 255, 255, 0), (255, 255, 255, 255))), HALVES, 0),
    "half transparent": (image_file(_two_colours("RGBA", (9, 9, 9, 0), (255, 255, 255, 128))), HALVES * 128 // 255, 1),
    "grey with alpha": (image_file(_two_colours("LA", (255, 0), (255, 255))), HALVES, 0),
    "transparent grey level": (image_file(_two_colours("L", 200, 255), transparency=200), HALVES, 0),
    "CMYK TIFF": (image_file(_two_colours("CMYK", (0, 0, 0, 255), (0, 0, 0, 0)), "TIFF"), HALVES, 0),
    "CMYK JPEG": (image_file(_two_colours("CMYK", (0, 0, 0, 255), (0, 0, 0, 0)), "JPEG", quality=100), HALVES, 3),
    "animated GIF": (_animated("GIF"), np.full((28, 28), 80), 0),
    "animated WebP": (_animated("WEBP"), np.full((28, 28), 80), 1),
    "turned by EXIF": (_sideways(), RAMP, 0),
    "1x1": (image_file(Image.new("L", (1, 1), 77)), np.full((28, 28), 77), 0),
    "not square": (image_file(Image.new("L", (56, 7), 77)), np.full((28, 28), 77), 0),
    "large": (
        image_file(Image.fromarray(HALVES.astype(np.uint8)).resize((2800, 1400), Image.Resampling.NEAREST)),
        HALVES,
        33,
    ),
}
"""Name → the file, the pixels that it must give to a 28x28 model of one channel, and by how much each may differ."""

NO_IMAGES: dict[str, tuple[bytes, int, str]] = {
    "text": (b"nothing of an image", 415, "no image"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "no image"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "no image"),
    "float TIFF": (image_file(Image.new("F", (28, 28)), "TIFF"), 415, "floating-point"),
    "half a PNG": (WHOLE[: len(WHOLE) // 2], 400, "truncated"),
    "PNG without its end": (WHOLE[:-30], 400, "truncated"),
    "corrupt PNG": (WHOLE[:60] + b"\0\0\0\0" + WHOLE[64:], 400, "damaged"),
    "half a JPEG": (image_file(Image.fromarray(RAMP), "JPEG")[:400], 400, "truncated"),
    "10000x10000": (_png_claiming(10_000, 10_000), 422, "10000x10000"),
    "bomb": (_png_claiming(60_000, 60_000), 422, str(MAX_PIXELS)),
}
"""Name → the file, the status that it gets, and what the error says."""
