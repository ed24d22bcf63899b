"""Tensors that a loop makes longer: greedy decoding with growing ids, caches, masks and scores."""

import pytest
import torch
from torch import nn

import deploypipe
from deploypipe.errors import ExportError, UsageError
from deploypipe.formats import FORMATS
from deploypipe.staging.trace import trace

IDS, LIMIT = torch.tensor([[3, 4, 5]]), torch.tensor(4)
PROBES = [
    (IDS, LIMIT),
    (torch.tensor([[5]]), torch.tensor(6)),
    (torch.tensor([[1, 2]]), torch.tensor(0)),
    (torch.tensor([[1, 2, 7, 8, 9]]), torch.tensor(1)),
]


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.key, self.out = nn.Embedding(12, 8), nn.Linear(8, 8), nn.Linear(8, 12)

    def next(self, ids):
        hidden = self.embed(ids)
        seen = torch.softmax(hidden[:, -1:] @ hidden.transpose(1, 2), -1) @ hidden
        return self.out(seen[:, -1]).argmax(-1, keepdim=True)


class OverARange(Decoder):
    def forward(self, ids, limit):
        for _ in range(int(limit)):
            ids = torch.cat([ids, self.next(ids)], 1)
        return ids


class ByLength(Decoder):
    def forward(self, ids, limit):
        while ids.shape[1] < int(limit):
            ids = torch.cat([ids, self.next(ids)], 1)
        return ids


class LimitIsATensor(Decoder):
    def forward(self, ids, limit):
        step = 0
        while limit > step:
            ids = torch.cat([ids, self.next(ids)], 1)
            step += 1
        return ids


class ByTwo(Decoder):
    """A counter that moves by 2, and pieces of 3."""

    def forward(self, ids, limit):
        step = 0
        while step <= int(limit):
            ids = torch.cat([ids, ids[:, -1:], ids[:, -1:] + 1, ids[:, :1]], 1)
            step += 2
        return ids


class UntilAllAreDone(Decoder):
    def forward(self, ids, limit):
        step, done = 0, torch.zeros(ids.shape[0], dtype=torch.bool)
        while step < int(limit) and not bool(done.all()):
            token = self.next(ids)
            done = done | (token[:, 0] == 0)
            ids = torch.cat([ids, token], 1)
            step += 1
        return ids, done


class UntilItEnds(Decoder):
    def forward(self, ids, limit):
        step = 0
        while True:
            if step >= int(limit):
                break
            token = self.next(ids)
            if int(token[0, 0]) == 7:
                break
            ids = torch.cat([ids, token], 1)
            step += 1
        return ids


class WithMaskAndCache(Decoder):
    """Three tensors of one length, which attention and a product put side by side."""

    def forward(self, ids, limit):
        mask, cache, step = torch.ones_like(ids), self.key(self.embed(ids)), 0
        while step < int(limit):
            query = self.embed(ids[:, -1:])
            scores = (query @ cache.transpose(1, 2)).masked_fill(mask[:, None] == 0, -1e9)
            token = self.out((torch.softmax(scores, -1) @ cache)[:, -1]).argmax(-1, keepdim=True)
            if int(token[0, 0]) == 0:
                break
            ids = torch.cat([ids, token], 1)
            mask = torch.cat([mask, torch.ones_like(token)], 1)
            cache = torch.cat([cache, self.key(self.embed(token))], 1)
            step += 1
        return ids * mask, cache


class FromNothing(Decoder):
    def forward(self, ids, limit):
        rows = torch.zeros(0, 8)
        for i in range(int(limit)):
            rows = torch.cat([rows, self.key(self.embed(ids[0, :1])) * (i + 1)])
        return rows, rows.sum(0)


class BesideAList(Decoder):
    def forward(self, ids, limit):
        tokens, step = [ids[:, :1]], 0
        while step < int(limit):
            ids = torch.cat([ids, self.next(ids)], 1)
            tokens.append(ids[:, -1:])
            step += 1
        return ids, torch.cat(tokens, 1)


class InABranchOfTheLoop(Decoder):
    def forward(self, ids, limit):
        for i in range(int(limit)):
            if ids[0, -1] > 2:
                ids = torch.cat([ids, self.next(ids)], 1)
            else:
                ids = torch.cat([ids, ids[:, -1:] + 4, ids[:, -1:] + i], 1)
        return ids


class Attending(Decoder):
    """As libraries write it: causal only where there is more than one query."""

    def forward(self, ids, limit):
        step = 0
        while step < int(limit):
            hidden = self.embed(ids)
            seen = nn.functional.scaled_dot_product_attention(hidden, hidden, hidden, is_causal=hidden.shape[1] > 1)
            ids = torch.cat([ids, self.out(seen[:, -1]).argmax(-1, keepdim=True)], 1)
            step += 1
        return ids


CARRIED = [
    OverARange, ByLength, LimitIsATensor, ByTwo, UntilAllAreDone, UntilItEnds, WithMaskAndCache, FromNothing,
    BesideAList, InABranchOfTheLoop, Attending,
]  # fmt: skip


@pytest.mark.sample(5)
@pytest.mark.parametrize("kind", CARRIED, ids=lambda kind: kind.__name__)
def test_program_returns_what_eager_returns(kind):
    module = kind().eval()
    program = trace(module, (IDS, LIMIT), {"ids": {1: "prompt"}}).program.module()
    for inputs in PROBES:
        expected, found = module(*inputs), program(*inputs)
        expected, found = (each if isinstance(each, tuple) else (each,) for each in (expected, found))
        for a, b in zip(expected, found, strict=True):
            assert a.shape == b.shape
            assert torch.allclose(a, b, atol=1e-5)


class NoEndInSight(Decoder):
    def forward(self, ids, limit):
        while int(ids.sum()) < 40:
            ids = torch.cat([ids, self.next(ids) + 1], 1)
        return ids


class Doubling(Decoder):
    def forward(self, ids, limit):
        for _ in range(int(limit)):
            ids = torch.cat([ids, ids], 1)
        return ids


class Shrinking(Decoder):
    def forward(self, ids, limit):
        for _ in range(int(limit)):
            ids = ids[:, 1:]
        return ids


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (NoEndInSight, "does not say how often it runs at most"),
        (Doubling, "before the loop and"),
        (Shrinking, "before the loop and"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_growth_without_a_bound_is_refused(kind, says):
    with pytest.raises(ExportError, match=says):
        trace(kind().eval(), (IDS, LIMIT), {"ids": {1: "prompt"}})


class Read(Decoder):
    """A list that the loop reads, so that its length cannot be counted before; and in a branch of the loop."""

    def forward(self, ids, limit):
        seen, step = [ids.float().mean()], 0
        while step < int(limit):
            if seen[-1] > 2:
                seen.append(seen[-1] * 0.7)
            elif len(seen) > 1:
                seen.append(seen[-1] + seen[0])
            step = step + 1
        return torch.stack(seen), torch.tensor(len(seen))


class ReadAroundALoop(Decoder):
    """The room is made of a number that the body reads."""

    def forward(self, ids, limit):
        seen, x, step = [], ids.float().mean(), 0
        while step < 3 and x > -5:
            step += 1
            seen.append(x)
            if len(seen) > 1:
                x = x - seen[-2] * 0.3
            for _ in range(int(limit)):
                if x > 0:
                    seen.append(x * 0.5)
                    x = x - 0.2
        return torch.stack(seen)


@pytest.mark.parametrize("kind", [Read, ReadAroundALoop], ids=lambda kind: kind.__name__)
def test_a_list_that_the_loop_reads_has_room_for_what_its_condition_allows(kind):
    test_program_returns_what_eager_returns(kind)


class Halving(nn.Module):
    """How often it runs depends on values alone."""

    def forward(self, x):
        rows = x.unsqueeze(0)
        while x.abs().max() > 0.1:
            x = x * 0.5
            rows = torch.cat([rows, x.unsqueeze(0)])
        return rows


@pytest.mark.filterwarnings("ignore")
def test_a_bound_of_the_users_is_for_loops_that_say_none(tmp_path):
    path, module = tmp_path / "m.pt2", ByLength().eval()
    deploypipe.export(module, (IDS, LIMIT), format="pt2", path=path, dynamic={"ids": {1: "prompt"}}, bound=1)
    limit = torch.tensor(9)
    assert torch.equal(deploypipe.load(path)(IDS, limit), module(IDS, limit))


@pytest.mark.sample(1)
@pytest.mark.parametrize("format", FORMATS)
def test_a_bound_of_the_users_makes_room(format, tmp_path):
    path, example = tmp_path / f"m{FORMATS[format].suffix}", (torch.tensor([0.5, -1.0, 2.0]),)
    with pytest.raises(ExportError, match="`bound=N`, `--bound N`"):
        deploypipe.export(Halving().eval(), example, format=format, path=path)
    with (
        pytest.warns(UserWarning, match="this loop may run 12 times"),
        pytest.warns(UserWarning, match=r"on \d+ drawn inputs eager runs a loop more often than the bound allows"),
    ):
        deploypipe.export(Halving().eval(), example, format=format, path=path, bound=12)
    runner = deploypipe.load(path)
    for size in (0.01, 1.0, 100.0):
        torch.testing.assert_close(runner(example[0] * size), Halving()(example[0] * size))
    try:
        beyond = runner(example[0] * 1e9)
    except Exception:  # whatever the runtime raises where there is no room
        pass
    else:
        torch.testing.assert_close(beyond, Halving()(example[0] * 1e9))
    with pytest.raises(UsageError, match="a bound of 0 is none"):
        deploypipe.export(Halving().eval(), example, format=format, path=path, bound=0)
