"""What a module keeps to itself, as inputs and outputs of its calls: the random numbers that it draws, and its state.

`explicit_call` makes of a module and a call of it a module whose outputs depend on its inputs alone, so that an
artifact of it can be proven.

- `draws`   each function of torch that draws random numbers, as a function of noise that is given
- `noise`   a module that takes its noise as the argument `noise`
- `state`   a module that takes its state as the argument `state`, and returns the new one beside its outputs
"""

from torch import nn

from deploypipe.contract.call import Call, CallForm
from deploypipe.contract.signature import Axes
from deploypipe.errors import UsageError
from deploypipe.explicit.noise import WithNoise, noise_of
from deploypipe.explicit.state import WithState, state_of
from deploypipe.torch_compat.around import parameter_beside, with_parameter
from deploypipe.torch_compat.wrappers import unwrapped

NOISE, STATE = "noise", "state"
RANDOM_REMEDY = 'Export it with random="input" (--random input): what it draws is computed from an input then.'
STATE_REMEDY = 'Export it with state="explicit" (--state explicit): the value is an input and an output then.'


def explicit_call(
    module: nn.Module, call: Call, dynamic: Axes, random: str | None, state: str | None
) -> tuple[nn.Module, Call, Axes]:
    """The module, its call and its dynamic axes, where `random` is "input" and `state` is "explicit". What has no
    state, or draws nothing, stays as it is. UsageError for other words."""
    for name, value, known in (("random", random, "input"), ("state", state, "explicit")):
        if value not in (None, known):
            raise UsageError(f"{name} is {value!r}", f'It is "{known}", or left out.')
    if state is not None:
        module = unwrapped(module)
        found = state_of(module, call)
        if found:
            name = parameter_beside(module, STATE)
            module = with_parameter(WithState, module, name, tuple(found))
            call = Call(*call.args, **call.kwargs, **{name: found})
    if random is not None:
        module = unwrapped(module)
        drawn, axes = noise_of(module, call, dynamic)
        if drawn:
            name = parameter_beside(module, NOISE)
            module = with_parameter(WithNoise, module, name)
            call = Call(*call.args, **call.kwargs, **{name: drawn})
            dynamic = {**dynamic, **{f"{name}[{i}]": each for i, each in enumerate(axes) if each}}
    return module, call, dynamic


def as_captured(module: nn.Module, call: Call | None, form: CallForm) -> tuple[nn.Module, Call | None]:
    """The module as one that takes its state and its noise as arguments, where calls of this form have them; and the
    call with both, where it is one of the author's module."""
    module = unwrapped(module)
    given = {parameter.name: parameter.structure for parameter in form.parameters}
    noise, state = parameter_beside(module, NOISE), parameter_beside(module, STATE)
    if call is not None and not {noise, state} & set(call.kwargs):
        random = "input" if noise in given else None
        module, call, _ = explicit_call(module, call, {}, random, "explicit" if state in given else None)
        return module, call
    if state in given:
        module = with_parameter(WithState, module, state, tuple(str(key) for key, _ in given[state]["dict"]))
    return with_parameter(WithNoise, module, noise) if noise in given else module, call
