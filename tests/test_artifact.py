"""Sidecars, and what is refused before an artifact is served."""

from pathlib import Path

import pytest

from deploypipe.errors import ServingError
from deploypipe.serve import server


@pytest.mark.parametrize("workers", [0, -1])
def test_a_server_without_workers_is_refused(tmp_path: Path, workers: int) -> None:
    with pytest.raises(ServingError, match=f"{workers} workers"):
        server.start(tmp_path, workers=workers)
