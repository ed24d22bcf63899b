"""Images with known classes as HTTP requests for the load generator."""

import io
from collections.abc import Callable, Sequence

import httpx
import numpy as np

from deploypipe.bench.generator import PreparedRequest
from deploypipe.contract.tensors import Array
from deploypipe.errors import UsageError
from deploypipe.png import png

_ARRAYS = 4
"""Different requests where each carries several images."""


def requests_for(
    url: str,
    images: Array,
    classes: Sequence[int],
    images_per_request: int = 1,
    *,
    token: str | None = None,
    wrap: Callable[[bytes], bytes] = lambda body: body,
) -> list[PreparedRequest]:
    """`uint8 [n, 28, 28]` and their classes → requests to `url`: one PNG each, or a `.npy` array of so many images,
    in turn from those there are. `wrap` makes of such a body what another server takes."""
    if images_per_request < 1:
        raise UsageError(f"a request with {images_per_request} images asks nothing")
    if images_per_request == 1:
        bodies = [png(image) for image in images]
        return [
            PreparedRequest(_post(url, wrap(body), token), (label,))
            for body, label in zip(bodies, classes, strict=True)
        ]
    found = []
    for first in range(0, _ARRAYS * images_per_request, images_per_request):
        rows = [i % len(images) for i in range(first, first + images_per_request)]
        file = io.BytesIO()
        np.save(file, images[rows], allow_pickle=False)
        found.append(PreparedRequest(_post(url, wrap(file.getvalue()), token), tuple(classes[i] for i in rows)))
    return found


def _post(url: str, body: bytes, token: str | None) -> bytes:
    """Few headers: TorchServe's workers read them one by one."""
    address = httpx.URL(url)
    head = [
        f"POST {address.raw_path.decode('ascii')} HTTP/1.1",
        f"Host: {address.netloc.decode('ascii')}",
        "Content-Type: application/octet-stream",
        f"Content-Length: {len(body)}",
        *([f"Authorization: Bearer {token}"] if token else []),
    ]
    return "\r\n".join(head).encode("ascii") + b"\r\n\r\n" + body
