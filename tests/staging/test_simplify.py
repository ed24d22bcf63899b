"""What the blocks of loops must not do in every step, and that what they do instead is the same."""

import pytest
import torch
from torch import fx, nn

from deploypipe.staging.trace import trace

aten = torch.ops.aten


class Count(nn.Module):
    def forward(self, x):
        n = 0
        while n < 20 and x.norm() > 1:
            x = x * 0.5
            n += 1
        return x, n


class Break(nn.Module):
    def forward(self, x):
        for _ in range(x.shape[0]):
            x = x * 0.9
            if x.sum() < 1:
                break
        return x


class Rows(nn.Module):
    def forward(self, x):
        state = torch.zeros(4)
        for row in x:
            state = torch.tanh(state + row)
        return state


class Columns(nn.Module):
    def forward(self, x):
        state = torch.zeros(x.shape[0])
        for t in range(x.shape[1]):
            state = torch.tanh(state + x[:, t])
        return state


class Shared(nn.Module):
    """The number is used besides being counted, and takes a step that is no constant."""

    def forward(self, x):
        n = 1
        while n < 100:
            x = x + n
            n = n * 2 + 1
        return x, n


class BreakAndMore(nn.Module):
    def forward(self, x):
        for _ in range(x.shape[0]):
            if x.sum() > 20:
                x = x * 0.5
                break
            x = x + 1
        return x


EXAMPLE = (torch.rand(5, 4),)
INPUTS = [torch.rand(6, 4), torch.rand(3, 4) * 100, -torch.rand(2, 4) * 50, torch.rand(1, 4)]


def operations(program):
    """What the blocks call, by target."""
    blocks = [m for name, m in program.graph_module.named_modules() if name and isinstance(m, fx.GraphModule)]
    return [node.target for block in blocks for node in block.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("cls", [Count, Break, Rows, Columns, Shared, BreakAndMore], ids=lambda c: c.__name__)
def test_the_program_agrees_with_eager(cls):
    program = trace(cls(), EXAMPLE, {"x": {0: "n"}}).program.module()
    for x in INPUTS:
        expected = cls()(x)
        torch.testing.assert_close(
            program(x), expected if isinstance(expected, torch.Tensor) else (expected[0], torch.tensor(expected[1]))
        )


def test_a_counter_stays_a_tensor():
    found = operations(trace(Count(), EXAMPLE, {"x": {0: "n"}}).program)
    assert aten.item.default not in found
    assert aten.scalar_tensor.default not in found
    assert torch.ops.higher_order.cond not in found


def test_a_break_is_a_flag_and_not_a_branch():
    found = operations(trace(Break(), EXAMPLE, {"x": {0: "n"}}).program)
    assert torch.ops.higher_order.cond not in found
    assert aten.logical_or.default in found


def test_a_branch_that_does_more_than_break_stays():
    assert torch.ops.higher_order.cond in operations(trace(BreakAndMore(), EXAMPLE, {"x": {0: "n"}}).program)


@pytest.mark.parametrize("cls", [Rows, Columns], ids=lambda c: c.__name__)
def test_an_index_is_asked_at_most_once(cls):
    found = operations(trace(cls(), EXAMPLE, {"x": {0: "n", 1: "m"}} if cls is Columns else {"x": {0: "n"}}).program)
    assert found.count(aten.item.default) <= 1
    assert aten.scalar_tensor.default not in found
    assert aten.slice.Tensor not in found


@pytest.mark.parametrize("cls", [Count, Break, Rows, Columns], ids=lambda c: c.__name__)
def test_a_loop_is_handed_only_what_it_reads(cls):
    graph_module = trace(cls(), EXAMPLE, {"x": {0: "n"}}).program.graph_module
    for node in graph_module.graph.find_nodes(op="call_function", target=torch.ops.higher_order.while_loop):
        test, body, carried, _ = node.args
        blocks = [getattr(graph_module, str(block.target)).graph for block in (test, body)]
        inputs = [block.find_nodes(op="placeholder")[len(carried) :] for block in blocks]
        assert all(a.users or b.users for a, b in zip(*inputs, strict=True))
