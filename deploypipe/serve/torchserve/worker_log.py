"""What a worker logs is one line an event, a traceback too. Travels inside archives.

TorchServe takes a worker's output line by line, and would make an event of each.
"""

import logging

LINE_BREAK = "\v"
"""Stands for a line break on the way: TorchServe does not split at it, and its log has line breaks again."""


_HEAD, _TAIL = 2000, 6000
"""Characters kept of what is longer: the end of a traceback says what went wrong."""


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if len(text) > _HEAD + _TAIL:
            text = f"{text[:_HEAD]}\n[…]\n{text[-_TAIL:]}"
        return LINE_BREAK.join(text.splitlines())


def one_line_an_event() -> None:
    """From now on, in this process."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_OneLine("%(levelname)s %(name)s: %(message)s"))
