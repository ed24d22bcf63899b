"""Rows of six values at which operators differ: ties, zeros of both signs, infinities and NaN; whole numbers; and
batches of one row and of none."""

import torch

NAN, INF = float("nan"), float("inf")

PLAIN = torch.tensor([[0.3, -1.2, 2.5, 0.7, -0.1, 1.9], [1.1, 0.4, -2.2, 3.5, 0.9, -0.6]])
TIES = torch.tensor([[1.0, 1.0, 0.0, -1.0, 2.0, 2.0], [0.0] * 6, [-3.0, -3.0, -3.0, 5.0, 5.0, 5.0]])
INFINITE = torch.tensor([[-INF, INF, 3.0, -0.0, 0.5, -2.5], [INF] * 6, [-INF] * 6])
MISSING = torch.tensor([[NAN, 1.0, 2.0, 0.0, NAN, -1.0], [NAN] * 6, [1.0, 2.0, NAN, 3.0, INF, -INF]])
ONE_ROW = torch.tensor([[5.0, -4.0, 3.0, -2.0, 1.0, 0.5]])
NO_ROWS = torch.zeros(0, 6)
FINITE = [(PLAIN,), (TIES,), (ONE_ROW,)]
FLOATS = [*FINITE, (INFINITE,), (MISSING,), (NO_ROWS,)]

WHOLE = torch.tensor([[3, 1, 1, -2, 0, 7], [-5, -5, 4, 4, 2, -7], [0] * 6])
INTEGERS = [(WHOLE,), (WHOLE[:1],), (WHOLE[:0],)]
BOOLEANS = [(WHOLE > 0,), (WHOLE[:1] > 0,)]
