"""Pixels as a PNG file."""

import io

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image


def png(pixels: ArrayLike) -> bytes:
    """`uint8 [height, width]`, an array or a tensor on the CPU, as the bytes of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(stream, "PNG")
    return stream.getvalue()
