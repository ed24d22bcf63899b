"""What forward prints is for people who watch it run: while a program is captured it is dropped, with one remark."""

from __future__ import annotations

import builtins
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from deploypipe.staging.context import StagingContext

REMARK = "what forward prints or logs is not in the artifact"


@contextlib.contextmanager
def silent(context: StagingContext) -> Iterator[None]:
    """Inside, `print` shows nothing, nor does logging, and the context holds a remark where forward printed."""
    held = builtins.print, logging.root.manager.disable

    def dropped(*args: Any, **kwargs: Any) -> None:
        if REMARK not in context.dropped:
            context.dropped.append(REMARK)

    builtins.print = dropped
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        builtins.print = held[0]
        logging.disable(held[1])
