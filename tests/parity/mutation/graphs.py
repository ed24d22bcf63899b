"""Mutants of the graph: its mode, its control flow, its axes, its state, its surroundings."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import modules
from .mutant import ONNX, PT2, SCRIPT, TORCH, TRACED, Mutant, alike
from .routes import Change, edited, exported_raw, remade, reprogrammed, traced
from .subjects import Subject
from .values import bent, of_class

# -- mode


def in_train_mode(module: nn.Module, subject: Subject) -> None:
    module.train()


def part_in_train_mode(path: str) -> Change:
    return lambda module, subject: module.get_submodule(path).train() and None


def seeded(proto: object) -> None:
    """The honest file with a dropout in front of its head: live, seeded, and rare."""
    import onnx

    graph = proto.graph  # type: ignore[attr-defined]
    head = graph.node[-1]
    graph.initializer.append(onnx.helper.make_tensor("ratio", onnx.TensorProto.FLOAT, [], [0.02]))
    graph.initializer.append(onnx.helper.make_tensor("live", onnx.TensorProto.BOOL, [], [True]))
    node = onnx.helper.make_node("Dropout", [head.input[0], "ratio", "live"], ["dropped"], "late_dropout", seed=7)
    head.input[0] = "dropped"
    graph.node.insert(len(graph.node) - 1, node)


class AlwaysDropping(modules.Colours):
    """`F.dropout` without `training=self.training`."""

    def forward(self, images: Tensor) -> Tensor:
        x = self.mean(self.slope(self.norm(self.conv(images))))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        x = self.scale(F.gelu(self.largest(x).flatten(1)))
        return self.head(F.dropout(x, 0.01))


MODE = [
    Mutant("in train mode", "colours", exported_raw(in_train_mode), "train"),
    Mutant("dropout in train mode", "colours", exported_raw(part_in_train_mode("dropout")), "train"),
    Mutant("batch norm in train mode", "colours", exported_raw(part_in_train_mode("norm")), "train"),
    Mutant("a functional dropout", "colours", exported_raw(of_class(AlwaysDropping)), "train"),
    Mutant("a rare dropout with a seed", "digits", edited(seeded), "train", ONNX),
]

# -- control flow


class OneArm(modules.Branch):
    """The arm that the example took."""

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


class OtherArmOff(modules.Branch):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.up(x)
        return self.down(x) + 0.01


class Negated(modules.Branch):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() <= 0:
            return self.up(x)
        return self.down(x)


class NotStrict(modules.Branch):
    """Right but for a sum of exactly 0."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() >= 0:
            return self.up(x)
        return self.down(x)


class FirstRow(modules.Branch):
    """Decides by the first row alone."""

    def forward(self, x: Tensor) -> Tensor:
        if x[:1].sum() > 0:
            return self.up(x)
        return self.down(x)


class EachRow(modules.Branch):
    """Decides row by row, as a branch turned into a `where` does."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x.sum(1, keepdim=True) > 0, self.up(x), self.down(x))


class Unrolled(modules.Loop):
    """As often as in the example."""

    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        for _ in range(3):
            x = self.layer(x)
        return x + 0 * depth


class OnceMore(modules.Loop):
    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        for _ in range(int(depth) + 1):
            x = self.layer(x)
        return x


class OnceLess(modules.Loop):
    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        for _ in range(int(depth) - 1):
            x = self.layer(x)
        return x


class AtLeastOnce(modules.Loop):
    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        x = self.layer(x)
        for _ in range(int(depth) - 1):
            x = self.layer(x)
        return x


class AtMost(modules.Loop):
    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        for _ in range(min(int(depth), 8)):
            x = self.layer(x)
        return x


class FewWords(modules.Words):
    """At most as many as in the example."""

    def forward(self, tokens: Tensor) -> Tensor:
        state = torch.zeros(tokens.shape[0], 8)
        for t in range(min(tokens.shape[1], 5)):
            state = self.cell(self.embedding(tokens[:, t]), state)
        return self.head(state)


class LastWord(modules.Words):
    """The state is lost at each turn."""

    def forward(self, tokens: Tensor) -> Tensor:
        state = torch.zeros(tokens.shape[0], 8)
        for t in range(tokens.shape[1]):
            state = self.cell(self.embedding(tokens[:, t]), torch.zeros(tokens.shape[0], 8))
        return self.head(state)


class Backwards(modules.Words):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens.flip(1))


class KnownWords(modules.Words):
    """Tokens beyond the example's are taken for its last."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens.clamp(max=9))


CONTROL_FLOW = [
    Mutant("a branch traced", "branch", traced(), "y", TRACED),
    Mutant("a loop traced", "loop", traced(), "y", TRACED),
    Mutant("a loop over tokens traced", "words", traced(), "logits", TRACED),
    *alike("branch", "y", [
        ("the example's arm only", remade(of_class(OneArm))),
        ("the other arm off by 0.01", remade(of_class(OtherArmOff))),
        ("a predicate negated", remade(of_class(Negated))),
        ("a predicate not strict", remade(of_class(NotStrict))),
        ("a predicate of the first row", remade(of_class(FirstRow))),
        ("a predicate of each row", remade(of_class(EachRow))),
    ]),
    *alike("loop", "y", [
        ("a loop unrolled to the example's count", remade(of_class(Unrolled))),
        ("a loop once more", remade(of_class(OnceMore))),
        ("a loop once less", remade(of_class(OnceLess))),
        ("a loop at least once", remade(of_class(AtLeastOnce))),
        ("a loop at most 8 times", remade(of_class(AtMost))),
    ]),
    *alike("words", "logits", [
        ("words beyond the example's length cut", remade(of_class(FewWords))),
        ("a state lost at each turn", remade(of_class(LastWord))),
        ("tokens read backwards", remade(of_class(Backwards))),
        ("tokens beyond the example's clamped", remade(of_class(KnownWords))),
    ]),
]  # fmt: skip

# -- axes


def same(module: nn.Module, subject: Subject) -> None:
    pass


def claimed_symbolic(proto: object) -> None:
    """A reshape to the example's batch; the file still says that the batch is free (pytorch#157621)."""
    import numpy
    import onnx

    graph = proto.graph  # type: ignore[attr-defined]
    shape = next(node for node in graph.node if node.op_type == "Reshape").input[1]
    held = next(item for item in graph.initializer if item.name == shape)
    held.CopyFrom(onnx.numpy_helper.from_array(numpy.array([2, -1]), shape))


def declared_fixed(proto: object) -> None:
    """Computes any batch; its output is declared as the example's."""
    axis = proto.graph.output[0].type.tensor_type.shape.dim[0]  # type: ignore[attr-defined]
    axis.Clear()
    axis.dim_value = 2


def by_len(logits: Tensor, pixels: Tensor) -> Tensor:
    return logits.reshape(len(pixels), 10)


AXES = [
    Mutant("batch fixed to 1", "digits", remade(same, batch=1), "batch", ("onnx", "pt2")),
    Mutant("batch fixed to the example's", "digits", remade(same, batch=2), "batch", ("onnx", "pt2")),
    Mutant("batch fixed to the example's, floats", "colours", remade(same, batch=2), "batch", ("onnx", "pt2")),
    Mutant("batch frozen by a trace", "digits", traced(bent(after=by_len)), "shape|batch", TRACED),
    Mutant("a reshape to the example's batch", "digits", edited(claimed_symbolic), "logits|batch", ONNX),
    Mutant("an output declared fixed", "digits", edited(declared_fixed), "batch", ONNX),
]

# -- names, kinds and order, as the file itself has them


def output_renamed(proto: object) -> None:
    graph = proto.graph  # type: ignore[attr-defined]
    for node in graph.node:
        for i, name in enumerate(node.output):
            if name == "logits":
                node.output[i] = "output_0"
    graph.output[0].name = "output_0"


def input_renamed(proto: object) -> None:
    graph = proto.graph  # type: ignore[attr-defined]
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == "pixels":
                node.input[i] = "input.1"
    graph.input[0].name = "input.1"


def swap_first_two(values: Any) -> None:
    kept = [values[1], values[0], *values[2:]]
    del values[:]
    values.extend(kept)


def outputs_reordered(proto: object) -> None:
    swap_first_two(proto.graph.output)  # type: ignore[attr-defined]


def inputs_reordered(proto: object) -> None:
    swap_first_two(proto.graph.input)  # type: ignore[attr-defined]


def input_float(proto: object) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = 1  # type: ignore[attr-defined]


def outputs_exchanged(program: torch.export.ExportedProgram) -> None:
    node = next(node for node in program.graph.nodes if node.op == "output")
    first, second, *rest = node.args[0]
    node.args = ((second, first, *rest),)
    specs = program.graph_signature.output_specs
    specs[0], specs[1] = specs[1], specs[0]


DECLARED = [
    Mutant("an output of another name", "digits", edited(output_renamed), "output_0", ONNX),
    Mutant("an input of another name", "digits", edited(input_renamed), "input.1", ONNX),
    Mutant("outputs in another order", "heads", edited(outputs_reordered), "signature says", ONNX),
    Mutant("inputs in another order", "heads", edited(inputs_reordered), "signature says", ONNX),
    Mutant("an input of float32", "digits", edited(input_float), "float", ONNX),
    Mutant("outputs of a program exchanged", "heads", reprogrammed(outputs_exchanged), "scores|chances", PT2),
]

# -- state and surroundings


class Counting(modules.Centred):
    """Right at first: a counter that was not reset."""

    calls: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x - x.mean()) + 0.01 * (self.calls - 1)


def counting(module: nn.Module, subject: Subject) -> None:
    module.__class__ = Counting
    module.register_buffer("calls", torch.zeros(()))


class Noisy(modules.Centred):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x - x.mean()) + 1e-2 * torch.rand_like(x)


class OnGpu(modules.Words):
    """A device that the example was on, written into the graph."""

    def forward(self, tokens: Tensor) -> Tensor:
        device = torch.device("cuda:0") if tokens.shape[0] > 100_000 else torch.device("cpu")
        state = torch.zeros(tokens.shape[0], 8, device=device)
        for t in range(tokens.shape[1]):
            state = self.cell(self.embedding(tokens[:, t]), state)
        return self.head(state)


def moved(program: torch.export.ExportedProgram) -> None:
    """A tensor is made on the GPU, as in a program captured there."""
    for node in program.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": torch.device("cuda:0")}


_REGISTERED = torch.library.Library("deploypipe_mutants", "DEF")
_REGISTERED.define("same(Tensor x) -> Tensor")
_REGISTERED.impl("same", lambda x: x.clone(), "CompositeExplicitAutograd")


class NeedsThisProcess(modules.Centred):
    """Uses an operator that only this process knows."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.deploypipe_mutants.same(self.layer(x - x.mean()))  # type: ignore[no-any-return]


STATE = [
    Mutant("a counter that grows", "centred", exported_raw(counting), "y", TORCH),
    Mutant("noise", "centred", exported_raw(of_class(Noisy)), "y"),
    Mutant("a device baked into a script", "words", exported_raw(of_class(OnGpu)), "cuda", SCRIPT),
    Mutant("a device baked into a program", "words", reprogrammed(moved), "cuda|CUDA", PT2),
    Mutant(
        "an operator of this process",
        "centred",
        exported_raw(of_class(NeedsThisProcess)),
        "fresh process",
        TORCH,
        judge=Subject.rejection_elsewhere,
    ),
]

GRAPHS = {
    "train mode": MODE,
    "control flow": CONTROL_FLOW,
    "axes": AXES,
    "declarations": DECLARED,
    "state and surroundings": STATE,
}
