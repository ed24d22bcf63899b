"""Lists whose length depends on data: buffers with room for `capacity` elements, and a count."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.same_tensor import put_into
from deploypipe.torch_compat.symbols import statically_known_true

Size = Any  # int or SymInt


class ElementForm(Protocol):
    """How one element of a list travels as tensors."""

    @property
    def skeleton(self) -> Any:
        """One element, as an example of the structure of all."""

    def to_tensors(self, value: Any) -> list[Tensor]:
        """An element's tensors. Unsupported where it does not fit the others."""

    def from_tensors(self, tensors: list[Tensor]) -> Any: ...


class CountingList:
    """Stands for a list in a first run of a loop that only counts how many elements will be appended."""

    def __init__(self, count: Size, last: Any = None) -> None:
        self.count = count
        self.last = last  # the last element, where there is one from the start, since loops like to test it

    def append(self, value: Any) -> None:
        self.count = self.count + 1
        if self.last is not None:
            self.last = value

    def __getitem__(self, index: Any) -> Any:
        if self.last is not None and isinstance(index, int) and index == -1:
            return self.last
        return self._refuse()

    def _refuse(self, *args: Any) -> Any:
        raise Unsupported(
            "a list that grows in a `while` loop",
            "the loop also reads it, so its size cannot be counted before",
            "use a `for` loop over a range with `break`",
        )

    def extend(self, values: Any) -> None:
        if not isinstance(values, (list, tuple)):
            self._refuse()
        for value in values:
            self.append(value)

    def __iadd__(self, values: Any) -> CountingList:
        self.extend(values)
        return self

    def length(self) -> Size:
        return self.count

    __setitem__ = __len__ = __iter__ = pop = clear = _refuse


class GrowingList:
    """Elements of one structure, stored leaf by leaf: `buffers[k][i]` is leaf `k` of element `i`."""

    def __init__(
        self,
        buffers: list[Tensor],
        count: Size,
        capacity: Size,
        form: ElementForm,
        *,
        grown: Size = 0,
        exact: bool = True,
        reserved: bool = False,
    ) -> None:
        self.buffers = buffers
        self.count = count
        self.capacity = capacity
        self.form = form
        self.grown = grown  # appended since the innermost loop body began, at most
        self.exact = exact  # whether exactly `grown` were appended, on every path
        self.reserved = reserved  # whether a loop around has already made room for what this loop body appends

    def copy(self) -> GrowingList:
        return GrowingList(
            list(self.buffers),
            self.count,
            self.capacity,
            self.form,
            grown=self.grown,
            exact=self.exact,
            reserved=self.reserved,
        )

    @property
    def skeleton(self) -> Any:
        return self.form.skeleton

    # Changing

    def append(self, value: Any) -> None:
        before, leaves = self.buffers, self.form.to_tensors(value)
        if self.reserved:
            at = torch.scalar_tensor(self.count, dtype=torch.int64)
            self.buffers = [
                torch.index_put(buffer, (at,), leaf) for buffer, leaf in zip(self.buffers, leaves, strict=True)
            ]
        else:
            self.buffers = [
                torch.cat([buffer, leaf.unsqueeze(0)]) for buffer, leaf in zip(self.filled(), leaves, strict=True)
            ]
            self.capacity = self.count + 1
        for made, old, part in zip(self.buffers, before, leaves, strict=True):
            put_into(made, old, part)
        self.count = self.count + 1
        self.grown = self.grown + 1

    def extend(self, values: Any) -> None:
        if isinstance(values, GrowingList):
            raise Unsupported("list.extend", "both lists have a length that depends on data", "append in one loop")
        for value in values:
            self.append(value)

    def insert(self, index: Any, value: Any) -> None:
        if not isinstance(index, int) or index != 0:
            raise Unsupported("list.insert(i, …)", "the list's length depends on data", "insert at 0 or append")
        self.append(value)
        self.buffers = [_to_front(b, self.count) for b in self.buffers]

    def __iadd__(self, values: Any) -> GrowingList:
        self.extend(values)
        return self

    def __add__(self, values: Any) -> GrowingList:
        made = self.copy()
        made.extend(values)
        return made

    def pop(self, index: int = -1) -> Any:
        if index != -1:
            raise Unsupported("list.pop(i)", "the list's length depends on data", "pop from the end only")
        value = self[-1]
        self.count = self.count - 1
        self.exact = False
        return value

    def reverse(self) -> None:
        at = torch.arange(self.capacity)
        back = torch.where(at < self.count, self.count - 1 - at, at)
        self.buffers = [torch.index_select(b, 0, back) for b in self.buffers]

    def clear(self) -> None:
        self.count = 0
        self.exact = False

    def __setitem__(self, index: Any, value: Any) -> None:
        at = torch.scalar_tensor(self._position(index), dtype=torch.int64)
        leaves = self.form.to_tensors(value)
        self.buffers = [torch.index_put(buffer, (at,), leaf) for buffer, leaf in zip(self.buffers, leaves, strict=True)]

    def __delitem__(self, index: Any) -> None:
        raise Unsupported("del items[i]", "the list's length depends on data", "pop from the end only")

    # Reading

    def _position(self, index: Any) -> Size:
        if isinstance(index, Tensor):
            index = index.item()
        if isinstance(index, int):
            return self.count + index if index < 0 else index
        if statically_known_true(index >= 0):
            return index
        return torch.where(torch.scalar_tensor(index, dtype=torch.int64) < 0,
                           torch.scalar_tensor(index + self.count, dtype=torch.int64),
                           torch.scalar_tensor(index, dtype=torch.int64)).item()  # fmt: skip

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            if index == slice(None, None, -1):
                back = self.copy()
                back.reverse()
                return back
            parts = [b[index] for b in self.filled()]
            return GrowingList(parts, parts[0].shape[0], parts[0].shape[0], self.form, exact=False)
        at = torch.scalar_tensor(self._position(index), dtype=torch.int64)
        return self.form.from_tensors([torch.index_select(b, 0, at.reshape(1)).squeeze(0) for b in self.buffers])

    def filled(self) -> list[Tensor]:
        """The buffers without the room that is not used."""
        if statically_known_true(self.count == self.capacity):
            return self.buffers
        return [b[: self.count] for b in self.buffers]

    def rows(self) -> Tensor:
        """All elements, stacked along a new first axis."""
        if len(self.buffers) != 1 or not isinstance(self.skeleton, (Tensor, int, float, torch.SymInt, torch.SymFloat)):
            raise Unsupported(
                "a list of tuples", "it is used where a list of tensors is expected", "keep one list a part"
            )
        return self.filled()[0]

    def length(self) -> Size:
        return self.count

    def __iter__(self) -> Any:
        raise Unsupported(
            "iterating a list whose length depends on data", "it is used outside a `for` of the model", "use a for loop"
        )

    def __len__(self) -> int:
        if isinstance(self.count, int):
            return self.count
        raise Unsupported("len() of a list whose length depends on data", "it is needed as a constant", "")


def _to_front(buffer: Tensor, count: Size) -> Tensor:
    """The last of `count` elements moved to the front."""
    at = torch.arange(buffer.shape[0])
    order = torch.where(at == 0, count - 1, torch.where(at < count, at - 1, at))
    return torch.index_select(buffer, 0, order)
