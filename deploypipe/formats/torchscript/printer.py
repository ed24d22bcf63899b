"""TorchScript: the original scripted where that works and agrees, else source printed from the captured program.

The printer writes one method a graph: `torch.cond` becomes `if`, `torch.while_loop` becomes `while`, every operator a
call of `torch.ops.aten`; weights and constants are attributes. Nothing is traced.
"""

from __future__ import annotations

import contextlib
import copy
import io
import keyword
import operator
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from deploypipe.errors import ExportError
from deploypipe.staging.copies import working_copy
from deploypipe.staging.outputs import tensors_only
from deploypipe.staging.trace import StaticProgram
from deploypipe.torch_compat.dispatch import OpOverload, is_mutable, pytree, schema_of

Inputs = tuple[Any, ...]

OPERATORS = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.floordiv: "//", operator.mod: "%",
    operator.truediv: "/", operator.pow: "**", operator.lt: "<", operator.le: "<=", operator.gt: ">",
    operator.ge: ">=", operator.eq: "==", operator.ne: "!=", operator.and_: "and", operator.or_: "or",
}  # fmt: skip
FUNCTIONS: dict[Any, str] = {
    torch.sym_max: "max({}, {})", torch.sym_min: "min({}, {})", torch.sym_float: "float({})", torch.sym_int: "int({})",
    torch.sym_not: "(not {})", torch.sym_ite: "({1} if {0} else {2})", operator.neg: "(-{})", operator.not_: "(not {})",
    torch.sym_sqrt: "float({}) ** 0.5",
}  # fmt: skip


def to_torchscript(
    module: nn.Module, capture: StaticProgram, probes: Sequence[Inputs], *, script_first: bool = True
) -> tuple[torch.jit.ScriptModule, str]:
    """A script module that returns what eager returns on every probe, and how it was made: `scripted` or `generated`.

    Raises `ExportError` when the program holds something that TorchScript cannot carry.
    """
    if script_first:
        scripted = _scripted(module, probes)
        if scripted is not None:
            return scripted, "scripted"
    return generate(capture), "generated"


def _scripted(module: nn.Module, probes: Sequence[Inputs]) -> torch.jit.ScriptModule | None:
    reference = working_copy(module)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scripted: torch.jit.ScriptModule = torch.jit.script(working_copy(module))
            buffer = io.BytesIO()
            torch.jit.save(scripted, buffer)
        for probe in probes:
            with torch.no_grad():
                expected = tensors_only(reference(*_own(probe)))
                given = _own(probe)
                found = scripted(*given)
            # A script module that works in place would change the tensors of whoever calls it.
            if not _agree(expected, found) or not _agree(list(probe), list(given)):
                return None
    except Exception:
        return None
    return scripted


def _own(inputs: Inputs) -> Inputs:
    return tuple(t.clone() if isinstance(t, Tensor) else t for t in inputs)


def _agree(expected: Any, found: Any) -> bool:
    """The same structure and values, up to the rounding of one runtime."""
    first, one = pytree.tree_flatten(expected)
    second, other = pytree.tree_flatten(found)
    if one != other or len(first) != len(second):
        return False
    for a, b in zip(first, second, strict=True):
        if not isinstance(a, Tensor) or not isinstance(b, Tensor):
            return False
        try:
            torch.testing.assert_close(b, a, equal_nan=True)
        except AssertionError:
            return False
    return True


def generate(capture: StaticProgram) -> torch.jit.ScriptModule:
    """Print the program as TorchScript source and compile it."""
    program = capture.program
    holder = _Holder()
    printer = _Printer(holder)
    inputs: list[str] = []
    bound: dict[str, str] = {}
    for spec, node in zip(
        program.graph_signature.input_specs, [n for n in program.graph.nodes if n.op == "placeholder"], strict=True
    ):
        if spec.kind is InputKind.USER_INPUT:
            value = node.meta.get("val")
            if isinstance(value, Tensor):
                inputs.append(f"{_name(node)}: Tensor")
            continue
        assert spec.target is not None
        value = program.state_dict.get(spec.target)
        if value is None:
            value = program.constants[spec.target]
        if not isinstance(value, Tensor):
            raise ExportError(f"TorchScript cannot carry the constant {spec.target}")
        bound[_name(node)] = holder.add(value)
    body = [f"{name} = self.{attribute}" for name, attribute in bound.items()]
    body += printer.graph(program.graph_module, program.graph)
    body.append(f"return {_structured(program, printer)}")
    lines = ["import torch", "from torch import Tensor", "from typing import Dict, List, Tuple, Optional", ""]
    lines += [f"def forward(self, {', '.join(inputs)}):", *[f"    {line}" for line in body]]
    source = "\n".join(lines) + "\n"
    return _compile(holder, source)


class _Holder(nn.Module):
    """Owns the weights under plain names."""

    def add(self, value: Tensor) -> str:
        for name, own in self.named_buffers(recurse=False):
            if own is value:
                return name
        name = f"t{len(list(self.buffers(recurse=False)))}"
        self.register_buffer(name, value.detach())
        return name


def _compile(holder: _Holder, source: str) -> torch.jit.ScriptModule:
    # TorchScript reads a method's source from its file, so there must be one while it compiles.
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / "generated.py"
        file.write_text(source)
        scope: dict[str, Any] = {}
        exec(compile(source, str(file), "exec"), scope)
        cls = type("Generated", (nn.Module,), {"forward": scope["forward"], "__module__": __name__})
        module = cls()
        module.__dict__.update(copy.copy(holder.__dict__))
        module.eval()
        try:
            made: torch.jit.ScriptModule = torch.jit.script(module)
        except Exception as error:
            raise ExportError(
                f"TorchScript does not accept the generated program: {str(error).strip()[:600]}"
            ) from error
        return made


def _structured(program: Any, printer: _Printer) -> str:
    """The return expression, in the structure of the model's outputs."""
    output = next(n for n in program.graph.nodes if n.op == "output")
    specs = program.graph_signature.output_specs
    values = [
        printer.value(node) for node, spec in zip(output.args[0], specs, strict=True) if spec.kind.name == "USER_OUTPUT"
    ]
    spec = program.call_spec.out_spec

    def build(part: Any) -> str:
        if part.is_leaf():
            return values.pop(0)
        children = [build(c) for c in part.children()]
        if part.type is tuple or part.type.__name__ in ("Size",) or hasattr(part.type, "_fields"):
            return "(" + ", ".join(children) + ("," if len(children) == 1 else "") + ")"
        if part.type is list:
            return "[" + ", ".join(children) + "]"
        if part.type is dict:
            return "{" + ", ".join(f"{k!r}: {c}" for k, c in zip(part.context, children, strict=True)) + "}"
        raise ExportError(f"TorchScript cannot return a {part.type.__name__}")

    return build(spec)


class _Printer:
    def __init__(self, holder: _Holder) -> None:
        self.holder = holder
        self.names: dict[fx.Node, str] = {}
        self.taken: set[str] = set()
        self.tuples: dict[fx.Node, list[str]] = {}
        self.depth = 0

    def fresh(self, hint: str) -> str:
        name, number = hint, 1
        while name in self.taken or keyword.iskeyword(name):
            number += 1
            name = f"{hint}_{number}"
        self.taken.add(name)
        return name

    def graph(self, owner: fx.GraphModule, graph: fx.Graph, arguments: Sequence[str] | None = None) -> list[str]:
        """The statements of a graph. A block's placeholders are the names of its operands."""
        lines: list[str] = []
        given = list(arguments) if arguments is not None else None
        for node in graph.nodes:
            if node.op == "placeholder":
                if given is None:
                    self.names[node] = _name(node)
                    self.taken.add(_name(node))
                else:
                    self.names[node] = given.pop(0)
            elif node.op == "get_attr":
                value = _attribute(owner, node.target)
                if isinstance(value, Tensor):
                    self.names[node] = f"self.{self.holder.add(value)}"
            elif node.op == "call_function":
                lines += self.call(owner, node)
        return lines

    def results(self, graph: fx.Graph) -> list[str]:
        output = next(n for n in graph.nodes if n.op == "output")
        values = output.args[0]
        return [self.value(v) for v in (values if isinstance(values, (tuple, list)) else [values])]

    def call(self, owner: fx.GraphModule, node: fx.Node) -> list[str]:
        target = node.target
        if target is operator.getitem and node.args[0] in self.tuples:
            self.names[node] = self.tuples[node.args[0]][node.args[1]]  # type: ignore[index]
            return []
        if target is torch.ops.higher_order.cond:
            return self.cond(owner, node)
        if target is torch.ops.higher_order.while_loop:
            return self.while_loop(owner, node)
        if not node.users and _pure(node):
            return []
        text = self.expression(node)
        if text is None:
            return []
        name = self.names[node] = self.fresh(_name(node))
        if _is_none(node):
            return [text]
        return [f"{name} = {text}"]

    def expression(self, node: fx.Node) -> str | None:
        target = node.target
        args = [self.value(a) for a in node.args]
        if target in OPERATORS:
            return f"({args[0]} {OPERATORS[target]} {args[1]})"
        if target in FUNCTIONS:
            return FUNCTIONS[target].format(*args)
        if target is operator.getitem:
            return f"{args[0]}[{args[1]}]"
        if target in (torch.ops.aten.sym_size.int,):
            return f"{args[0]}.size({args[1]})"
        if target is torch.ops.aten.item.default or target is torch.ops.aten._local_scalar_dense.default:
            value = node.meta.get("val")
            kind = "int" if isinstance(value, (torch.SymInt, int)) else "float"
            kind = "bool" if isinstance(value, (torch.SymBool, bool)) else kind
            return f"{kind}({args[0]})"
        if target is torch.ops.aten._assert_scalar.default:
            return None if self.depth else f"assert {args[0]}, {args[1]}"
        if target is torch.ops.aten._assert_async.msg:
            return f"assert bool({args[0]}), {args[1]}"
        if target in (torch.ops.aten.sym_constrain_range_for_size.default, torch.ops.aten.sym_constrain_range.default):
            return None
        if isinstance(target, OpOverload):
            return self.operator_call(node, target, args)
        raise ExportError(f"TorchScript has no form for {target}", "Export this model as pt2 or ONNX.")

    def operator_call(self, node: fx.Node, target: OpOverload, args: list[str]) -> str:
        schema = schema_of(target)
        parts = []
        for argument, value in zip(schema.arguments, node.args, strict=False):
            parts.append(self.typed(argument, value))
        by_name = {a.name: a for a in schema.arguments}
        parts += [f"{k}={self.typed(by_name[k], v)}" for k, v in node.kwargs.items() if not _default(by_name[k], v)]
        namespace, _, name = schema.name.partition("::")
        return f"torch.ops.{namespace}.{name}({', '.join(parts)})"

    def typed(self, argument: Any, value: Any) -> str:
        """A value as the schema's type asks for: numbers given for tensors, optional tensors in lists."""
        kind = str(argument.type)
        if kind == "Tensor" and isinstance(value, fx.Node) and not isinstance(value.meta.get("val"), Tensor):
            # A symbolic number in a tensor's place: TorchScript picks the overload for numbers.
            return self.value(value)
        if "Optional[Tensor]" in kind and isinstance(value, (list, tuple)):
            inner = ", ".join(self.value(v) for v in value)
            if any(v is None for v in value):
                return f"torch.jit.annotate(List[Optional[Tensor]], [{inner}])"
            return f"[{inner}]"
        if isinstance(value, (list, tuple)) and not value:
            return "torch.jit.annotate(List[int], [])" if "int" in kind or "Int" in kind else "[]"
        return self.value(value)

    def value(self, value: Any) -> str:
        if isinstance(value, fx.Node):
            return self.names[value]
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(self.value(v) for v in value) + "]"
        if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
            return f"float('{value}')"
        if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
            return str(value)
        if isinstance(value, torch.device):
            return f"torch.device({str(value)!r})"
        if value is None or isinstance(value, (bool, int, float, str)):
            return repr(value)
        raise ExportError(f"TorchScript has no form for the value {value!r}", "Export this model as pt2 or ONNX.")

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        self.depth += 1
        yield
        self.depth -= 1

    def cond(self, owner: fx.GraphModule, node: fx.Node) -> list[str]:
        pred, then, orelse, operands = node.args
        names = [self.fresh(f"{_name(node)}_{i}") for i in range(_width(owner, then))]
        self.tuples[node] = names
        test = self.value(pred)
        lines = [f"if {_truth(pred, test)}:"]
        with self.inside():
            for block in (then, orelse):
                module = _attribute(owner, block.target)  # type: ignore[union-attr]
                inner = self.graph(module, module.graph, [self.value(o) for o in operands])  # type: ignore[union-attr]
                inner += [f"{n} = {r}" for n, r in zip(names, self.results(module.graph), strict=True)]
                lines += [f"    {line}" for line in inner or ["pass"]]
                if block is then:
                    lines.append("else:")
        return lines

    def while_loop(self, owner: fx.GraphModule, node: fx.Node) -> list[str]:
        test, body, carried, additional = node.args
        extra = [self.value(a) for a in additional]  # type: ignore[union-attr]
        names = [self.fresh(f"{_name(node)}_{i}") for i in range(len(carried))]  # type: ignore[arg-type]
        going = self.fresh(f"{_name(node)}_going")
        self.tuples[node] = names
        lines = [f"{n} = {self.value(c)}" for n, c in zip(names, carried, strict=True)]  # type: ignore[arg-type]
        condition, block = _attribute(owner, test.target), _attribute(owner, body.target)  # type: ignore[union-attr]
        with self.inside():
            first = self.graph(condition, condition.graph, [*names, *extra])
            lines += [*first, f"{going} = bool({self.results(condition.graph)[0]})", f"while {going}:"]
            inner = self.graph(block, block.graph, [*names, *extra])
            results = self.results(block.graph)
            held = [self.fresh(f"{n}_next") for n in names]
            inner += [f"{h} = {r}" for h, r in zip(held, results, strict=True)]
            inner += [f"{n} = {h}" for n, h in zip(names, held, strict=True)]
            again = self.graph(condition, condition.graph, [*names, *extra])
            inner += [*again, f"{going} = bool({self.results(condition.graph)[0]})"]
        return lines + [f"    {line}" for line in inner]


def _truth(node: Any, text: str) -> str:
    value = node.meta.get("val") if isinstance(node, fx.Node) else node
    return f"bool({text})" if isinstance(value, Tensor) else text


def _width(owner: fx.GraphModule, block: Any) -> int:
    output = next(n for n in _attribute(owner, block.target).graph.nodes if n.op == "output")
    return len(output.args[0])


def _attribute(owner: nn.Module, path: Any) -> Any:
    value: Any = owner
    for part in str(path).split("."):
        value = getattr(value, part)
    return value


def _name(node: fx.Node) -> str:
    return f"{node.name}_" if keyword.iskeyword(node.name) or node.name in ("self", "torch") else node.name


def _pure(node: fx.Node) -> bool:
    target = node.target
    if isinstance(target, OpOverload):
        return not is_mutable(target) and "assert" not in str(target)
    return True


def _is_none(node: fx.Node) -> bool:
    target = node.target
    return isinstance(target, OpOverload) and len(schema_of(target).returns) == 0


def _default(argument: Any, value: Any) -> bool:
    return bool(argument.has_default_value() and argument.default_value is None and value is None)
