"""Images and pixel lists → `uint8` pixels in the model's shape. Travels inside archives.

What becomes of an image: its EXIF rotation is applied; transparency is laid over black, the background of the images
that models here are trained on; palette, CMYK and other colours become RGB and then, for one channel, ITU-R 601 luma;
16-bit greys keep their upper 8 bits; of an animation the first frame counts; what is not H by W is resized to it,
bilinear with antialiasing, without keeping the aspect ratio.
"""

import io
import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ...contract.rejection import BAD_REQUEST, UNPROCESSABLE, UNSUPPORTED_MEDIA_TYPE, Rejection
from ...errors import first_line

Pixels = NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
"""Those with decoders in Pillow itself; EPS and the like would start programs."""

MAX_PIXELS = 1 << 24
"""4096 x 4096; what a header declares beyond that is refused before anything is decoded, whatever the model."""

PIXELS_FACTOR = 8192
"""As many times the model's own pixels are decoded at most: an image of 90 times its height and width. What is larger
is refused before it is decoded; but a JPEG, such as a phone's photo of 12 megapixels for a 28x28 model, is decoded at a
half, a quarter or an eighth of its height and width, which costs little."""

NPY_MAGIC = b"\x93NUMPY"
_ROTATION = 0x0112
_TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


def decode_image(data: bytes | bytearray, into: Pixels) -> None:
    """Decode one image file into `into`, `[channels, height, width]` with 1 or 3 channels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is odd in a client's file, and no matter for our log
        with _opened(data) as image:
            try:
                _bound(image, into)
                _convert(image, into)
            except Rejection:
                raise
            except Exception as cause:
                raise Rejection(BAD_REQUEST, f"the image is damaged or truncated: {first_line(cause)}") from cause


def _opened(data: bytes | bytearray) -> Image.Image:
    """The image by its header; nothing is decoded yet."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as cause:
        raise Rejection(UNPROCESSABLE, f"the image is too large: at most {MAX_PIXELS} pixels are accepted") from cause
    except UnidentifiedImageError as cause:
        raise Rejection(
            UNSUPPORTED_MEDIA_TYPE, f"the body is no image that can be read; accepted: {', '.join(FORMATS)}"
        ) from cause
    except Exception as cause:  # a damaged header makes decoders raise nearly anything
        raise Rejection(BAD_REQUEST, f"the image is damaged: {first_line(cause)}") from cause


def _bound(image: Image.Image, into: Pixels) -> None:
    """Rejection for an image of more pixels than may be decoded; a JPEG is set to be decoded smaller."""
    most = min(MAX_PIXELS, PIXELS_FACTOR * into.shape[1] * into.shape[2])
    width, height = image.size
    if MAX_PIXELS >= width * height > most:
        for times in (2, 4, 8):
            if image.width * image.height > most:
                image.draft(None, (max(1, width // times), max(1, height // times)))
    if image.width * image.height > most:
        raise Rejection(
            UNPROCESSABLE,
            f"the image has {width}x{height} pixels; at most {most if width * height <= MAX_PIXELS else MAX_PIXELS} "
            f"are accepted",
        )


def _convert(image: Image.Image, into: Pixels) -> None:
    channels, height, width = into.shape
    wanted = "L" if channels == 1 else "RGB"
    image.load()
    if image.getexif().get(_ROTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise Rejection(UNSUPPORTED_MEDIA_TYPE, "floating-point pixels have no defined range; send 8 or 16 bit")
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 0xFFFF:
            raise Rejection(UNPROCESSABLE, "integer pixels must lie within 0..65535")
        image = Image.fromarray((grey >> 8).astype(np.uint8))
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer).convert("RGB")
    if image.mode != wanted:
        # Straight to "L" would give CMYK and the rarer modes conversions of their own.
        image = image if image.mode in ("1", "L", "RGB") else image.convert("RGB")
        image = image.convert(wanted)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    into[...] = pixels if channels == 1 else pixels.transpose(2, 0, 1)


def pixels_from_lists(value: Any, shape: tuple[int, ...], where: str) -> Pixels:
    """Nested lists of whole numbers 0..255 as an array of `shape` ([C, H, W]); [H, W] will do for one channel."""
    try:
        array = np.array(value)
    except ValueError as cause:
        raise Rejection(UNPROCESSABLE, f"{where} is ragged; accepted: {_accepted(shape)}") from cause
    if array.shape != shape and not (shape[0] == 1 and array.shape == shape[1:]):
        raise Rejection(UNPROCESSABLE, f"{where} has shape {list(array.shape)}; accepted: {_accepted(shape)}")
    if array.dtype.kind not in "iuf":
        raise Rejection(UNPROCESSABLE, f"{where} holds values that are no numbers; accepted: {_accepted(shape)}")
    if not ((array >= 0) & (array <= 255)).all():  # false for NaN too
        raise Rejection(UNPROCESSABLE, f"{where} has pixels outside 0..255; accepted: {_accepted(shape)}")
    whole = array.astype(np.uint8)
    if array.dtype.kind == "f" and (whole != array).any():
        raise Rejection(UNPROCESSABLE, f"{where} has fractional pixels; accepted: {_accepted(shape)}")
    return whole.reshape(shape)


def pixels_from_npy(data: bytes | bytearray, shape: tuple[int, ...]) -> Pixels:
    """A `.npy` file of `uint8`, `[n, H, W]` (one channel) or `[n, C, H, W]`, as `[n, C, H, W]`."""
    channels, height, width = shape
    accepted = f"uint8 [n, {height}, {width}]" if channels == 1 else f"uint8 [n, {channels}, {height}, {width}]"
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            found, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            found, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    except Exception as cause:
        raise Rejection(
            BAD_REQUEST, f"the .npy header is damaged: {first_line(cause)}; accepted: {accepted}"
        ) from cause
    if dtype != np.uint8:
        raise Rejection(UNPROCESSABLE, f"the .npy array is {dtype}; accepted: {accepted}")
    rows = (found[0], 1, *found[1:]) if channels == 1 and len(found) == 3 else found
    if len(rows) != 4 or rows[1:] != shape or rows[0] < 1:
        raise Rejection(UNPROCESSABLE, f"the .npy array has shape {list(found)}; accepted: {accepted}")
    # The header is only a claim: compare it with what came before anything of that size is allocated.
    content = memoryview(data)[file.tell() :]
    if math.prod(found) != len(content):
        raise Rejection(BAD_REQUEST, f"the .npy file is truncated or too long: {len(content)} bytes for {list(found)}")
    array = np.frombuffer(content, np.uint8).reshape(found, order="F" if fortran else "C")
    return array.reshape(rows) if not fortran else np.ascontiguousarray(array).reshape(rows)


def _accepted(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    nested = f"{height}x{width}" if channels == 1 else f"{channels}x{height}x{width}"
    return f"{nested} nested lists of whole numbers 0..255"
