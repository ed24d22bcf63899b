"""Networks and algorithms that people deploy."""
# ruff: noqa: SIM108 -- written as users write it

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._case import ROWS, STEPS, case, ints, num, rand

FORM = "realistic"
LENGTHS = [(rand(1, 1, 3),), (rand(3, 8, 3),), (rand(2, 2, 3),)]


@case("greedy_decoding", FORM, (rand(1, 6),), [(rand(1, 6, seed=s) * 2,) for s in (0, 1, 2, 5, 9)])
class GreedyDecoding(nn.Module):
    """One token a step until end of sentence, or too long."""

    EOS = 2

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.cell = nn.GRUCell(6, 6)
        self.out = nn.Linear(6, 7)

    def forward(self, memory: Tensor) -> Tensor:
        h = memory
        token = torch.ones(1, dtype=torch.long)
        tokens = [token]
        for _ in range(12):
            h = self.cell(self.embed(token), h)
            token = self.out(h).argmax(dim=-1)
            tokens.append(token)
            if token.item() == self.EOS:
                break
        return torch.stack(tokens, dim=1)


@case(
    "greedy_decoding_with_cat",
    FORM,
    (ints(7, 1, 3),),
    [(ints(7, 1, 3, seed=s),) for s in (1, 2, 5)] + [(ints(7, 1, 1),), (ints(7, 1, 6),)],
    {"prompt": {1: "length"}},
)
class GreedyDecodingWithCat(nn.Module):
    """As most write it: the sequence itself grows, and the whole of it is read again."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.attend = nn.Linear(8, 8)
        self.out = nn.Linear(8, 7)

    def forward(self, prompt: Tensor) -> Tensor:
        ids = prompt
        while ids.shape[1] < 10:
            e = self.embed(ids)
            weights = torch.softmax(self.attend(e) @ e[:, -1].unsqueeze(-1), dim=1)
            next_id = self.out((e * weights).sum(dim=1)).argmax(dim=-1, keepdim=True)
            ids = torch.cat([ids, next_id], dim=1)
            if next_id.item() == 3:
                break
        return ids


@case(
    "batched_decoding",
    FORM,
    (rand(2, 6),),
    [(rand(3, 6, seed=1) * 2,), (rand(1, 6, seed=2) * 2,), (rand(4, 6, seed=5),), ((rand(2, 6, seed=1) * 3)[1:],)],
    {"memory": {0: "batch"}},
)
class BatchedDecoding(nn.Module):
    """Stops when every row of the batch is finished; finished rows emit padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 6)
        self.cell = nn.GRUCell(6, 6)
        self.out = nn.Linear(6, 5)

    def forward(self, memory: Tensor):
        batch = memory.shape[0]
        h = memory
        token = torch.ones(batch, dtype=torch.long)
        finished = torch.zeros(batch, dtype=torch.bool)
        output = torch.zeros(batch, 8, dtype=torch.long)
        step = 0
        while step < 8 and not finished.all():
            h = self.cell(self.embed(token), h)
            token = self.out(h).argmax(dim=-1)
            token = torch.where(finished, torch.zeros_like(token), token)
            output[:, step] = token
            finished = finished | (token == 2)
            step += 1
        return output, finished


@case("early_exit", FORM, (rand(3, 8),), [(rand(2, 8) * s,) for s in (0.1, 3.0, 12.0, 60.0)] + [(rand(1, 8),)], ROWS)
class EarlyExit(nn.Module):
    """A head after every layer; the first confident one answers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.heads = nn.ModuleList(nn.Linear(8, 3) for _ in range(4))

    def forward(self, x: Tensor):
        for depth, (layer, head) in enumerate(zip(self.layers, self.heads)):  # fixed  # noqa: B905
            x = torch.relu(layer(x)) + x
            probabilities = head(x).softmax(dim=-1)
            if probabilities.max(dim=-1).values.min() > 0.5:
                return probabilities, torch.tensor(depth)
        return probabilities, torch.tensor(len(self.layers))


@case(
    "mixture_of_experts",
    FORM,
    (rand(5, 4),),
    [(rand(8, 4),), (rand(1, 4),), (rand(3, 4, shift=2.0),), (rand(2, 4, shift=-2.0),)],
    ROWS,
)
class MixtureOfExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(4, 3)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).softmax(dim=-1).max(dim=-1)
        out = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):  # fixed
            mine = chosen == index
            if mine.any():
                out[mine] = expert(x[mine]) * weights[mine].unsqueeze(-1)
        return out


@case(
    "adaptive_computation_time",
    FORM,
    (rand(3, 4),),
    [(rand(2, 4),), (rand(5, 4) * 3,), (rand(1, 4) - 2,), (rand(3, 4) + 40,), (rand(3, 4) - 40,)],
    ROWS,
)
class AdaptiveComputationTime(nn.Module):
    """Graves 2016: each row ponders until its halting probability is used up."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 4)
        self.halt = nn.Linear(4, 1)
        nn.init.constant_(self.halt.weight, 2.0)
        nn.init.constant_(self.halt.bias, -1.0)

    def forward(self, x: Tensor):
        h = torch.zeros_like(x)
        halted = torch.zeros(x.shape[0])
        answer = torch.zeros_like(x)
        steps = 0
        while (halted < 0.99).any() and steps < 6:
            h = self.cell(x, h)
            p = torch.sigmoid(self.halt(h)).squeeze(-1) * 1.2
            running = halted < 0.99
            p = torch.where(halted + p > 0.99, 1 - halted, p) * running
            answer = answer + p.unsqueeze(-1) * h
            halted = halted + p
            steps += 1
        if (halted < 0.99).any():
            answer = answer + (1 - halted).unsqueeze(-1) * h
        return answer, halted


@case("deep_equilibrium", FORM, (rand(3, 4),), [(rand(2, 4),), (rand(5, 4) * 9,), (torch.zeros(1, 4),)], ROWS)
class DeepEquilibrium(nn.Module):
    """A fixed point of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4, bias=False)
        self.outer = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        injected = self.outer(x)
        z = torch.zeros_like(x)
        for _ in range(30):
            z_next = torch.tanh(0.5 * self.inner(z) + injected)
            if (z_next - z).norm() < 0.02 * (z.norm() + 0.1):
                z = z_next
                break
            z = z_next
        return z


@case("newton_root", FORM, (rand(3),), [(rand(4) + 2,), (torch.zeros(2),), (rand(1) * 4,)], {"target": {0: "n"}})
class NewtonRoot(nn.Module):
    """Solves y + y**3 = target."""

    def step(self, y: Tensor, target: Tensor) -> Tensor:
        return y - (y + y**3 - target) / (1 + 3 * y**2)

    def forward(self, target: Tensor):
        y = torch.zeros_like(target)
        residual = (y + y**3 - target).abs().max()
        iterations = 0
        while residual > 1e-2 and iterations < 25:
            y = self.step(y, target)
            residual = (y + y**3 - target).abs().max()
            iterations = iterations + 1
        return y, torch.tensor(iterations)


@case(
    "gradient_descent_with_patience",
    FORM,
    (rand(4),),
    [(rand(4) * 3,), (torch.zeros(4),), (rand(4) * 0.1,), (torch.ones(4) * 300,)],
)
class GradientDescentWithPatience(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        curvature = torch.tensor([1.0, 2.0, 3.0, 8.0])
        rate, best, bad = 0.4, float("inf"), 0
        for _ in range(40):
            loss = (curvature * x * x).sum().item()
            if loss < best * 0.9:
                best = loss
                bad = 0
            else:
                bad += 1
                rate *= 0.5
            if bad >= 3 or loss < 1e-3:
                break
            x = x - rate * curvature * x
        return x


@case(
    "kalman_filter",
    FORM,
    (rand(5, 2),),
    [(rand(1, 2),), (rand(9, 2),), (rand(0, 2),), (torch.full((3, 2), float("nan")),)],
    {"z": {0: "time"}},
)
class KalmanFilter(nn.Module):
    """Constant-velocity tracking; a missing measurement (NaN) is only predicted."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("F", torch.eye(4) + torch.diag(torch.ones(2), 2))
        self.register_buffer("H", torch.eye(2, 4))
        self.register_buffer("Q", torch.eye(4) * 0.01)
        self.register_buffer("R", torch.eye(2) * 0.1)

    def forward(self, z: Tensor):
        mean = torch.zeros(4)
        cov = torch.eye(4)
        for measurement in z:
            mean = self.F @ mean
            cov = self.F @ cov @ self.F.T + self.Q
            if torch.isnan(measurement).any():
                continue
            s = self.H @ cov @ self.H.T + self.R
            # The inverse of a 2x2 matrix, written out.
            det = s[0, 0] * s[1, 1] - s[0, 1] * s[1, 0]
            inverse = torch.stack([torch.stack([s[1, 1], -s[0, 1]]), torch.stack([-s[1, 0], s[0, 0]])]) / det
            gain = cov @ self.H.T @ inverse
            mean = mean + gain @ (measurement - self.H @ mean)
            cov = (torch.eye(4) - gain @ self.H) @ cov
        return mean, cov


@case(
    "masked_lstm",
    FORM,
    (rand(2, 5, 3), torch.tensor([5, 2])),
    [
        (rand(2, 5, 3), torch.tensor([5, 2])),
        (rand(1, 1, 3), torch.tensor([1])),
        (rand(3, 6, 3), torch.tensor([1, 6, 4])),
        (rand(2, 4, 3), torch.tensor([0, 0])),
    ],
    {"x": {0: "batch", 1: "length"}, "lengths": {0: "batch"}},
)
class MaskedLstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor, lengths: Tensor):
        h = torch.zeros(x.shape[0], 4)
        c = torch.zeros(x.shape[0], 4)
        outputs = []
        for t in range(x.shape[1]):
            h_new, c_new = self.cell(x[:, t], (h, c))
            running = (t < lengths).unsqueeze(1)
            h = torch.where(running, h_new, h)
            c = torch.where(running, c_new, c)
            outputs.append(h)
        return self.head(h), torch.stack(outputs, dim=1)


@case(
    "bidirectional_gru",
    FORM,
    (ints(20, 2, 5),),
    [(ints(20, 3, 9, seed=1),), (ints(20, 1, 1),), (ints(20, 2, 2, seed=2),)],
    {"tokens": {0: "batch", 1: "length"}},
)
class BidirectionalGru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 4)
        self.ahead = nn.GRUCell(4, 4)
        self.back = nn.GRUCell(4, 4)
        self.classify = nn.Linear(8, 3)

    def scan(self, cell: nn.GRUCell, x: Tensor, backwards: bool = False) -> list[Tensor]:
        h = torch.zeros(x.shape[0], 4)
        states = []
        steps = range(x.shape[1])
        if backwards:
            steps = reversed(steps)
        for t in steps:
            h = cell(x[:, t], h)
            states.append(h)
        return states

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        ahead = self.scan(self.ahead, x)
        back = self.scan(self.back, x, backwards=True)
        return self.classify(torch.cat([ahead[-1], back[-1]], dim=1))


@case("attention_window", FORM, (rand(2, 6, 4),), [(rand(1, 1, 4),), (rand(2, 9, 4),), (rand(3, 3, 4),)], STEPS)
class AttentionWindow(nn.Module):
    """Each step attends to the last three, over a sequence of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        out = []
        for t in range(x.shape[1]):
            start = max(0, t - 2)
            keys, values = k[:, start : t + 1], v[:, start : t + 1]
            scores = (keys * q[:, t : t + 1]).sum(dim=-1) / 2.0
            out.append((scores.softmax(dim=1).unsqueeze(-1) * values).sum(dim=1))
        return torch.stack(out, dim=1)


@case(
    "lista",
    FORM,
    (rand(3, 4), num(4)),
    [(rand(2, 4) * 3, num(6)), (rand(1, 4), num(0)), (rand(5, 4) * 0.1, num(1))],
    ROWS,
)
class Lista(nn.Module):
    """Learned iterative shrinkage, with as many iterations as the caller asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(4, 6, bias=False)
        self.inhibit = nn.Linear(6, 6, bias=False)
        self.threshold = nn.Parameter(torch.full((6,), 0.1))

    def shrink(self, x: Tensor) -> Tensor:
        return x.sign() * F.relu(x.abs() - self.threshold)

    def forward(self, x: Tensor, iterations: Tensor) -> Tensor:
        code = self.shrink(self.encode(x))
        for _ in range(int(iterations)):
            code = self.shrink(self.encode(x) + self.inhibit(code))
        return code


@case(
    "stack_machine",
    FORM,
    (torch.tensor([3, 4, -1, 5, -2]),),
    [(torch.tensor([3, 4, -1, 5, -2]),), (torch.tensor([7]),), (torch.tensor([2, 3, 4, -2, -1]),)],
    {"program": {0: "length"}},
)
class StackMachine(nn.Module):
    """Reverse Polish notation, the stack a tensor and a pointer: -1 adds, -2 multiplies."""

    def forward(self, program: Tensor) -> Tensor:
        stack = torch.zeros(8, dtype=torch.long)
        top = 0
        for symbol in program:
            if symbol >= 0:
                stack[top] = symbol
                top += 1
            else:
                a, b = stack[top - 2], stack[top - 1]
                if symbol == -1:
                    result = a + b
                else:
                    result = a * b
                top -= 1
                stack[top - 1] = result
        return stack[0]


@case(
    "non_maximum_suppression",
    FORM,
    (rand(5, 2).abs(), rand(5, seed=1)),
    [
        (rand(5, 2).abs(), rand(5, seed=1)),
        (rand(1, 2).abs(), rand(1)),
        (rand(9, 2, seed=4).abs() * 0.3, rand(9, seed=5)),
    ],
    {"centres": {0: "boxes"}, "scores": {0: "boxes"}},
)
class NonMaximumSuppression(nn.Module):
    """Keep the best, drop its neighbours, repeat."""

    def forward(self, centres: Tensor, scores: Tensor):
        alive = torch.ones(scores.shape[0], dtype=torch.bool)
        keep = []
        while alive.any():
            best = torch.where(alive, scores, torch.full_like(scores, -1e9)).argmax()
            keep.append(best)
            distance = (centres - centres[best]).norm(dim=1)
            alive = alive & (distance > 0.5)
        return torch.stack(keep)


@case(
    "bucketed_embedding",
    FORM,
    (ints(9, 2, 5),),
    [(ints(9, 2, 3),), (ints(9, 1, 1),), (ints(9, 3, 6),), (ints(9, 2, 14),)],
    {"tokens": {0: "batch", 1: "length"}},
)
class BucketedEmbedding(nn.Module):
    """Another table for short, middle and long inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.short, self.middle, self.long = nn.Embedding(9, 4), nn.Embedding(9, 4), nn.Embedding(9, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        if length <= 3:
            e = self.short(tokens)
        elif length <= 8:
            e = self.middle(tokens)
        else:
            e = self.long(tokens)
        return e.mean(dim=1)


@case("precision_by_range", FORM, (rand(3, 4),), [(rand(2, 4) * 0.5,), (rand(5, 4) * 1e5,), (rand(1, 4),)], ROWS)
class PrecisionByRange(nn.Module):
    """Half precision where it cannot overflow."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if x.abs().max() < 1e4:
            x = x.to(torch.float16).float()
        else:
            x = x / x.abs().max()
        return self.linear(x)


@case("viterbi", FORM, (rand(5, 3),), [(rand(1, 3),), (rand(8, 3, seed=2),), (rand(2, 3),)], {"emissions": {0: "time"}})
class Viterbi(nn.Module):
    """The best path: forwards with back-pointers, then backwards through them."""

    def __init__(self) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.randn(3, 3))

    def forward(self, emissions: Tensor):
        score = emissions[0]
        history = []
        for t in range(1, emissions.shape[0]):
            total = score.unsqueeze(1) + self.transitions
            best, previous = total.max(dim=0)
            score = best + emissions[t]
            history.append(previous)
        tag = score.argmax()
        path = [tag]
        for t in range(len(history) - 1, -1, -1):
            tag = history[t][tag]
            path.append(tag)
        path.reverse()
        return torch.stack(path), score.max()


@case(
    "dynamic_time_warping",
    FORM,
    (rand(4, 2), rand(5, 2, seed=1)),
    [(rand(3, 2), rand(6, 2, seed=1)), (rand(1, 2), rand(1, 2, seed=2)), (rand(5, 2), rand(2, 2, seed=3))],
    {"a": {0: "n"}, "b": {0: "m"}},
)
class DynamicTimeWarping(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        n, m = a.shape[0], b.shape[0]
        table = torch.full((n + 1, m + 1), 1e9)
        table[0, 0] = 0
        for i in range(1, n + 1):
            for j in range(1, m + 1):
                cost = (a[i - 1] - b[j - 1]).norm()
                table[i, j] = cost + min(table[i - 1, j], table[i, j - 1], table[i - 1, j - 1])
        return table[n, m]


@case("associative_scan_by_hand", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class AssociativeScanByHand(nn.Module):
    """A selective state-space layer, one step at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.decay = nn.Linear(3, 3)
        self.write = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        decay = torch.sigmoid(self.decay(x))
        write = self.write(x)
        ys = []
        h = torch.zeros(x.shape[0], 3)
        for t in range(x.shape[1]):
            h = decay[:, t] * h + (1 - decay[:, t]) * write[:, t]
            ys.append(h * x[:, t])
        return torch.stack(ys, 1)


@case(
    "speech_endpoint",
    FORM,
    (rand(1, 9, 4),),
    [(rand(1, 9, 4),), (rand(1, 1, 4),), (torch.zeros(1, 7, 4),), (rand(1, 6, 4) * 4,)],
    {"frames": {1: "time"}},
)
class SpeechEndpoint(nn.Module):
    """Stops after three quiet frames in a row, and says where."""

    def forward(self, frames: Tensor):
        quiet = 0
        energy = torch.tensor(0.0)
        end = frames.shape[1]
        for t in range(frames.shape[1]):
            level = frames[0, t].pow(2).mean()
            energy = 0.8 * energy + 0.2 * level
            if level < 0.2:
                quiet += 1
            else:
                quiet = 0
            if quiet == 3:
                end = t + 1
                break
        return energy, torch.tensor(end)


@case(
    "normalising_preprocessor",
    FORM,
    (torch.full((2, 1, 4, 4), 100.0),),
    [
        (torch.full((3, 1, 4, 4), 100.0) + rand(3, 1, 4, 4),),
        (rand(1, 1, 4, 4).abs().clamp(max=0.9),),
        (rand(2, 1, 4, 4) - 5,),
    ],
    {"image": {0: "batch"}},
)
class NormalisingPreprocessor(nn.Module):
    """Guesses the scale of its input, as image code does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, image: Tensor) -> Tensor:
        if image.max() > 1.0:
            image = image / 255.0
        if image.min() < 0:
            image = (image + 1) / 2
        features = F.relu(self.norm(self.conv(image)))
        return features.mean(dim=(2, 3))
