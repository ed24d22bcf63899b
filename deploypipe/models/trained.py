"""The trained network of a run."""

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from deploypipe.contract.run import Run
from deploypipe.errors import TrainingError, first_line
from deploypipe.models.zoo import entry_of

AGAIN = "Train again: `deploypipe train`."


def load_trained(run: Run) -> nn.Module:
    """The trained module, eager, on the CPU, in eval mode. TrainingError when the weights are not this run's,
    UsageError when the zoo has no network of that name."""
    if not run.has_its_weights():
        raise TrainingError(f"{run.weights} is missing or is not what this run trained", AGAIN)
    module = entry_of(run.model).build()
    try:
        module.load_state_dict(load_file(run.weights))
    except (OSError, RuntimeError, SafetensorError) as cause:
        raise TrainingError(f"{run.weights} does not fit {run.model}: {first_line(cause)}", AGAIN) from cause
    return module.eval()
