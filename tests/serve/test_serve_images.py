"""What becomes of every kind of image: a table of files and the pixels they must give."""

import io
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploypipe.serve.images import MAX_PIXELS, decode_image
from deploypipe.serve.rejection import Rejection

GREY = np.arange(784, dtype=np.uint16).reshape(28, 28) % 256
RAMP = GREY.astype(np.uint8)


def _file(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _decode(data: bytes, channels: int = 1) -> np.ndarray:
    into = np.full((channels, 28, 28), 99, np.uint8)
    decode_image(data, into)
    return into


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
    return _file(frames[0], format, save_all=True, append_images=frames[1:], **({"lossless": True}))


def _sideways() -> bytes:
    """Stored turned by 90 degrees, with the EXIF entry that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    return _file(Image.fromarray(RAMP).transpose(Image.Transpose.ROTATE_90), exif=exif)


SIXTEEN = GREY * 256 + 255 - GREY  # the upper 8 bits are RAMP
HALVES = np.repeat([[0] * 14 + [255] * 14], 28, 0)


@pytest.mark.parametrize(
    ("data", "wanted", "atol"),
    [
        (_file(Image.fromarray(RAMP)), RAMP, 0),
        (_file(Image.fromarray(RAMP), "BMP"), RAMP, 0),
        (_file(Image.fromarray(RAMP), "TIFF"), RAMP, 0),
        (_file(Image.fromarray(RAMP), "PPM"), RAMP, 0),
        (_file(Image.fromarray(RAMP), "GIF"), RAMP, 0),
        (_file(Image.fromarray(RAMP).convert("RGB"), "WEBP", lossless=True), RAMP, 0),
        (_file(Image.fromarray(HALVES.astype(np.uint8)), "JPEG", quality=100), HALVES, 3),
        (_file(Image.fromarray(RAMP).convert("RGB")), RAMP, 0),
        (_file(_two_colours("RGB", (0, 0, 0), (255, 0, 0))), HALVES * 76 // 255, 1),  # ITU-R 601: 0.299 red
        (_file(_palette()), RAMP % 4 * 10, 0),
        (_file(_two_colours("1", 0, 1)), HALVES, 0),
        (_file(Image.fromarray(SIXTEEN)), RAMP, 0),
        (_file(Image.fromarray(SIXTEEN), "TIFF"), RAMP, 0),
        (_file(_two_colours("RGBA", (255, 255, 255, 0), (255, 255, 255, 255))), HALVES, 0),
        (_file(_two_colours("RGBA", (9, 9, 9, 0), (255, 255, 255, 128))), HALVES * 128 // 255, 1),
        (_file(_two_colours("LA", (255, 0), (255, 255))), HALVES, 0),
        (_file(_two_colours("L", 200, 255), transparency=200), HALVES, 0),
        (_file(_two_colours("CMYK", (0, 0, 0, 255), (0, 0, 0, 0)), "TIFF"), HALVES, 0),
        (_file(_two_colours("CMYK", (0, 0, 0, 255), (0, 0, 0, 0)), "JPEG", quality=100), HALVES, 3),
        (_animated("GIF"), np.full((28, 28), 80), 0),
        (_animated("WEBP"), np.full((28, 28), 80), 1),
        (_sideways(), RAMP, 0),
        (_file(Image.new("L", (1, 1), 77)), np.full((28, 28), 77), 0),
        (_file(Image.new("L", (56, 7), 77)), np.full((28, 28), 77), 0),
        (_file(Image.fromarray(HALVES.astype(np.uint8)).resize((2800, 1400), Image.Resampling.NEAREST)), HALVES, 33),
    ],
    ids=[
        "PNG", "BMP", "TIFF", "PPM", "GIF", "WebP", "JPEG", "RGB", "red", "palette", "1 bit", "16 bit PNG",
        "16 bit TIFF", "transparent is black", "half transparent", "grey with alpha", "transparent grey level",
        "CMYK TIFF", "CMYK JPEG", "animated GIF", "animated WebP", "turned by EXIF", "1x1", "not square", "large",
    ],
)  # fmt: skip
def test_images(data: bytes, wanted: np.ndarray, atol: int) -> None:
    assert np.abs(_decode(data)[0].astype(int) - wanted).max() <= atol


def test_a_model_of_three_channels_gets_colours() -> None:
    found = _decode(_file(Image.new("RGB", (5, 5), (1, 2, 3))), channels=3)
    assert (found == np.array([1, 2, 3]).reshape(3, 1, 1)).all()


def _png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header declares a size, and whose data is a few bytes: a bomb if anyone allocates for it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


WHOLE = _file(Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)))


@pytest.mark.parametrize(
    ("data", "status", "says"),
    [
        (b"nothing of an image", 415, "no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "no image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "no image"),
        (_file(Image.new("F", (28, 28)), "TIFF"), 415, "floating-point"),
        (WHOLE[: len(WHOLE) // 2], 400, "truncated"),
        (WHOLE[:-30], 400, "truncated"),
        (WHOLE[:60] + b"\0\0\0\0" + WHOLE[64:], 400, "damaged"),
        (_file(Image.fromarray(RAMP), "JPEG")[:400], 400, "truncated"),
        (_png_claiming(10_000, 10_000), 422, "10000x10000"),
        (_png_claiming(60_000, 60_000), 422, str(MAX_PIXELS)),
    ],
    ids=[
        "text", "EPS", "SVG", "float TIFF", "half a PNG", "PNG without its end", "corrupt PNG", "half a JPEG",
        "10000x10000", "bomb",
    ],
)  # fmt: skip
def test_what_is_no_whole_image_is_refused(data: bytes, status: int, says: str) -> None:
    begun = time.perf_counter()
    with pytest.raises(Rejection) as caught:
        _decode(data)
    assert caught.value.status == status, caught.value
    assert says in caught.value.message
    assert time.perf_counter() - begun < 1
