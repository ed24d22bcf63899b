"""Learning rate schedules, by name: up to the peak and down from it."""

import math
from collections.abc import Callable
from dataclasses import dataclass


def straight(part: float) -> float:
    return 1 - part


def cosine(part: float) -> float:
    return (1 + math.cos(math.pi * part)) / 2


@dataclass(frozen=True)
class Schedule:
    """Shapes that fall from 1 at 0 to 0 at 1, and where they begin and end as fractions of the peak."""

    down: Callable[[float], float]
    up: Callable[[float], float] = straight
    warmup: float = 0.0
    start: float = 0.0
    final: float = 0.0

    def share(self, done: float) -> float:
        """Of the peak rate, when this fraction of the training is done (0 to 1)."""
        if done < self.warmup:
            return float(1 - (1 - self.start) * self.up(done / self.warmup))
        falling = (done - self.warmup) / (1 - self.warmup) if done > self.warmup else 0.0
        return float(self.final + (1 - self.final) * self.down(falling))


SCHEDULES = {
    "one-cycle": Schedule(cosine, cosine, 0.3, 1 / 25, 1 / 250_000),  # torch's OneCycleLR
    "linear": Schedule(straight),
    "cosine": Schedule(cosine),
    "step": Schedule(lambda part: 0.1 ** int(part * 3)),
    "constant": Schedule(lambda part: 1.0),
}
