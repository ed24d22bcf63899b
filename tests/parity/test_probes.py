import pytest
import torch
from torch import nn

from deploypipe.contract.signature import Signature, TensorSpec
from deploypipe.errors import UsageError
from deploypipe.parity.gate import usable
from deploypipe.parity.probes import SIZES, Probe, drawn_probes, image_probes, row_probes
from deploypipe.parity.reference import Reference

X = TensorSpec("x", "float32", ("batch", 3))
Y = TensorSpec("y", "float32", ("batch",))


def test_image_probes_cover_sizes_and_what_no_dataset_has() -> None:
    probes = image_probes(torch.zeros(10, 1, 28, 28, dtype=torch.uint8))
    families = {family: [probe for probe in probes if probe.family == family] for family in {p.family for p in probes}}
    for family in ("test images", "random pixels"):
        assert [probe.rows for probe in families[family]] == list(SIZES)
    (lit,) = families["one pixel lit"]
    assert lit.inputs[0].shape == (784, 1, 28, 28) and lit.inputs[0].sum() == 784 * 255
    assert families["all 0"][0].inputs[0].max() == 0 and families["all 255"][0].inputs[0].min() == 255
    assert all(probe.inputs[0].dtype == torch.uint8 for probe in probes)


def test_drawn_probes_keep_dtype_range_and_fixed_axes() -> None:
    signature = Signature((TensorSpec("t", "int64", ("batch", 3)), TensorSpec("m", "bool", (2,))), ())
    example = (torch.tensor([[4, 5, 9]]), torch.tensor([True, False]))
    drawn = [probe for probe in drawn_probes(signature.inputs, example) if probe.family == "drawn"]
    assert [probe.rows for probe in drawn] == [max(size, 2) for size in SIZES]
    for probe in drawn:
        tokens, mask = probe.inputs
        assert tokens.shape[1] == 3 and tokens.dtype == torch.int64 and tokens.min() >= 4 and tokens.max() <= 9
        assert mask.shape == (2,) and mask.dtype == torch.bool


def test_floats_are_drawn_far_smaller_and_larger_too() -> None:
    probes = drawn_probes((X,), (torch.ones(2, 3),))
    largest = {probe.family: probe.inputs[0].abs().max().item() for probe in probes}
    signs = [probe.inputs[0].sum(1) > 0 for probe in probes if probe.family == "both signs"]
    assert all(positive.any() and not positive.all() for positive in signs)
    assert (
        largest["all zero"] == 0
        and largest["all one"] == 1
        and largest["drawn x 0.0001"] < 0.01
        and largest["drawn x 10000"] > 1000
    )


@pytest.mark.parametrize(
    ("outputs", "count"),
    [((Y,), 7), ((TensorSpec("y", "float32", (3,)),), 0), ((TensorSpec("y", "float32", ()),), 0)],
    ids=["row by row", "another axis leads", "a scalar"],
)
def test_rows_are_asked_alone_where_the_model_works_row_by_row(outputs: tuple[TensorSpec, ...], count: int) -> None:
    signature = Signature((X,), outputs)
    rows = row_probes(drawn_probes(signature.inputs, (torch.ones(2, 3),)), signature)
    assert [probe.rows for probe in rows] == [1] * count


class Endless(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while x.sum() < 10:
            x = x * 2
        return x


def test_a_drawn_probe_on_which_eager_never_ends_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploypipe.parity.reference.PATIENCE", 0.2)
    zero, one = Probe("all zero", (torch.zeros(2),), optional=True), Probe("drawn", (torch.ones(2),), optional=True)
    taken, untried = usable(Reference(Endless()), [zero, one])
    assert taken == [one]
    assert untried == [
        "not proven: probe all zero [2]: the eager model fails on inputs float32[2]: "
        "no end after 0.2 s of processor time"
    ]


def test_a_given_probe_that_eager_refuses_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match=r"probe given \[2\]: the eager model fails"):
        usable(Reference(nn.Linear(3, 1)), [(torch.zeros(2),)])


@pytest.mark.parametrize(
    ("example", "tried"),
    [(torch.tensor([1, 3]), 2), (torch.tensor([1, 20_000]), 0), (torch.tensor([1, 3], dtype=torch.uint8), 0)],
    ids=["counts", "too many to try", "pixels"],
)
def test_counts_go_beyond_the_example(example: torch.Tensor, tried: int) -> None:
    signature = Signature((TensorSpec("n", "int64", (2,)),), ())
    beyond = [probe for probe in drawn_probes(signature.inputs, (example,)) if probe.family == "larger counts"]
    assert len(beyond) == tried and all(probe.inputs[0].max() > 3 for probe in beyond)


@pytest.mark.parametrize(
    ("name", "example", "counts", "other"),
    [
        ("attention_mask", torch.ones(2, 8, dtype=torch.int64), 1, 0),
        ("key_padding_mask", torch.zeros(2, 8).bool(), 0, 1),
        ("attention_mask", torch.ones(2, 8), 1, 0),
        ("bias_mask", torch.tensor([0.0] * 5 + [-torch.inf] * 3).repeat(2, 1), 0, -torch.inf),
    ],
    ids=["ones count", "True is left out", "ones of floats", "added to scores"],
)
def test_a_mask_is_one_in_every_family(name: str, example: torch.Tensor, counts: int, other: float) -> None:
    """Seen with BERT: of a mask that was all zero no row sees a key, and runtimes rightly differ there."""
    dtype = str(example.dtype).removeprefix("torch.")
    specs = [TensorSpec("x", "float32", ("batch", "length")), TensorSpec(name, dtype, ("batch", "length"))]
    probes = drawn_probes(specs, [torch.rand(2, 8), example])
    assert {"drawn", "all zero", "all one", "both signs", "drawn x 10000"} <= {probe.family for probe in probes}
    masks = [probe.inputs[1] for probe in probes]
    assert any((mask != counts).any() for mask in masks)
    for mask in masks:
        assert mask.dtype == example.dtype and set(mask.unique().tolist()) <= {counts, other}
        assert (mask[:, 0] == counts).all(), "a row where nothing counts"
        assert (mask.eq(counts).long().diff(dim=1) <= 0).all(), "no prefix"


def test_a_mask_alone_is_data() -> None:
    drawn = drawn_probes([TensorSpec("mask", "float32", ("batch", 3))], [torch.ones(2, 3)])
    assert any(probe.inputs[0].max() > 2 for probe in drawn)
