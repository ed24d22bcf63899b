"""Whether torchrun started this process, and whether it is the one that speaks. Needs no torch."""

import os


def launched() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def leads() -> bool:
    """Whether this process shows and writes; one that torchrun did not start always does."""
    return not launched() or os.environ["RANK"] == "0"
