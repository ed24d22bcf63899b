"""What the processes of a group do that do not lead: their share of each step."""

from pathlib import Path
from typing import Any

import torch

from deploypipe.contract.run import Run, open_run
from deploypipe.data import Dataset
from deploypipe.errors import Interrupted, TrainingError
from deploypipe.training.config import TrainConfig
from deploypipe.training.distributed import Group
from deploypipe.training.loop import Exploded, Loop
from deploypipe.training.stop import stop_requests


def follow(
    config: TrainConfig,
    dataset: Dataset,
    folder: Path,
    device: torch.device,
    saved: dict[str, Any] | None,
    group: Group,
) -> Run:
    """The run that the leader wrote into `folder`."""
    with stop_requests() as stop:
        try:
            loop = Loop(config, dataset, device, group)
            if saved:
                loop.restore(saved)
            while not loop.done:
                loop.advance()
                if loop.at_epoch_end:
                    loop.finish_epoch()
            group.wait()
        except Exploded as cause:
            raise TrainingError(f"the loss became {cause.loss:g}") from None
        except RuntimeError:
            # The leader saves and leaves when it is asked to stop: only then is there nobody left.
            if stop.asked:
                raise Interrupted("training interrupted") from None
            raise
    return open_run(folder)
