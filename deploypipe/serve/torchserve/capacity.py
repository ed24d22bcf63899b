"""How many requests may wait: those answered in time, by the pace of the archives' own handlers on this machine."""

from collections.abc import Sequence

from deploypipe.contract.archive import Archive
from deploypipe.contract.tasks import IMAGE_CLASSIFICATION
from deploypipe.errors import DeploypipeError
from deploypipe.serve.sessions import ArchiveSession

_SECONDS = 0.3
"""Of measuring, for each archive."""
_SHARE = 0.5
"""Of the handlers' pace is what requests see: the front end, and clients on the same machine, take the rest."""


def queue_for(archives: Sequence[Archive], workers: int, batch: int, device: str, seconds: float) -> int:
    """The length of a model's queue whose last request is answered within `seconds`, when it is asked for one image,
    or for as much as its packaged sample, at a time.

    Each archive's handler is loaded into this process and timed; the slowest decides, for TorchServe has one length
    for all. The last in the queue also waits for the batch that its worker has in hand, so that is taken off; where a
    full batch takes more than half of `seconds`, the queue is what makes batches smaller. At least one. An archive that
    does not load here is left to the server, which says why; where none does, a batch may wait.
    """
    rates = []
    for archive in archives:
        inputs = archive.sample.inputs
        if archive.task == IMAGE_CLASSIFICATION:
            inputs = (inputs[0][:1],)
        try:
            with ArchiveSession(archive, device) as session:
                rates.append(session.rate(inputs, batch, _SECONDS))
        except DeploypipeError:
            continue
    if not rates:
        return batch
    in_time = min(rates) * _SHARE * seconds  # by one worker
    return max(1, int(workers * max(in_time - batch, in_time / 2)))
