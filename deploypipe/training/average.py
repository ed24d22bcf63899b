"""A mean of the weights over the steps of a training. A step counts less the longer ago it is."""

from torch import Tensor, nn

from deploypipe.torch_compat.kernels import move_towards


class Average:
    """The mean of every tensor in the module's state that holds floating-point numbers, batch normalisation's
    statistics among them."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        # The module changes these tensors in place: they are its state after every later step, too.
        self._live = {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
        self.weights = {name: tensor.clone() for name, tensor in self._live.items()}

    def update(self, step: int) -> None:
        """Take in the weights after `step` steps (from 1). At the start the mean forgets faster, or it would keep the
        first weights for long."""
        decay = min(self.decay, (1 + step) / (10 + step))
        move_towards(self.weights.values(), self._live.values(), 1 - decay)

    def restore(self, weights: dict[str, Tensor]) -> None:
        for name, tensor in weights.items():
            self.weights[name].copy_(tensor)
