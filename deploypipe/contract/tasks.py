"""What a server makes of a model: classes from pixels, or tensors as the signature says. This module travels inside
archives."""

from .signature import Signature

IMAGE_CLASSIFICATION, TENSORS = "image-classification", "tensors"


def image_shape(signature: Signature) -> tuple[int, ...]:
    """[C, H, W] of a model that takes `uint8 [batch, C, H, W]` alone; ValueError for any other."""
    spec = signature.inputs[0]
    shape = tuple(axis for axis in spec.shape[1:] if isinstance(axis, int))
    alone = len(signature.inputs) == len(signature.outputs) == 1
    pixels = spec.dtype == "uint8" and len(spec.shape) == 4 and isinstance(spec.shape[0], str)
    if alone and pixels and len(shape) == 3 and shape[0] in (1, 3):
        return shape
    raise ValueError(f"an image classifier takes uint8 [batch, 1 or 3, H, W] alone, not {list(signature.inputs)}")
