"""A name without a value: never assigned, or with no single value on the paths that lead here."""

from typing import Any, NoReturn

from deploypipe.compiler.unsupported import Unsupported


class Undefined:
    """Refuses every use, and says why."""

    def __init__(self, name: str, why: str = "", remedy: str = "", where: str = "") -> None:
        self.__dict__.update(name=name, why=why, remedy=remedy, where=where)

    def refuse(self) -> NoReturn:
        name, why = self.__dict__["name"], self.__dict__["why"]
        if not why:
            raise UnboundLocalError(f"local variable {name!r} is read before it is assigned")
        construct = f"variable `{name}`" if name.isidentifier() else name
        raise Unsupported(construct, why, self.__dict__["remedy"], self.__dict__["where"])

    def _use(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse()

    __getattr__ = __call__ = __getitem__ = __iter__ = __len__ = __bool__ = __index__ = __int__ = __float__ = _use
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _use
    __matmul__ = __rmatmul__ = __pow__ = __rpow__ = __floordiv__ = __mod__ = __neg__ = __invert__ = _use
    __lt__ = __le__ = __gt__ = __ge__ = __iadd__ = __imul__ = __isub__ = __and__ = __or__ = __contains__ = _use

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        for value in [*args, *(kwargs or {}).values()]:
            for part in value if isinstance(value, (tuple, list)) else [value]:
                if isinstance(part, Undefined):
                    part.refuse()
        raise Unsupported("a variable", "it has no value here")
