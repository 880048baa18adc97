"""Weights of strangers, checked against the network that takes them. Every family that has a network uses this.

network = without_memory(lambda: Network(config))
expected = network.state_dict()
weights = read_safetensors(path, lambda header: check_header(header, expected, path))
network.load_state_dict(fit_weights(weights, expected, path), assign=True)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from avsr.errors import ModelError
from avsr.untrusted.values import shown

if TYPE_CHECKING:
    import torch

    from avsr.untrusted.safetensors import Stored

AGAIN = "download the model again"

Made = TypeVar("Made")


def without_memory(make: Callable[[], Made]) -> Made:
    """The network that `make` gives, on the meta device: names, shapes and dtypes, and no numbers."""
    import torch
    from torch.overrides import TorchFunctionMode

    class WithoutFirstValues(TorchFunctionMode):
        """Leaves out the random values that a layer begins with. On the meta device they only cost time."""

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            # Some layers call the methods of the tensor; on the meta device these import the compiler of torch, in 1 s.
            is_random = getattr(function, "__name__", "") in ("normal_", "uniform_")
            if is_random or getattr(function, "__module__", "") == "torch.nn.init":
                return (kwargs or {})["tensor"] if "tensor" in (kwargs or {}) else args[0]
            return function(*args, **(kwargs or {}))

    with torch.device("meta"), WithoutFirstValues():
        return make()


def check_header(header: Mapping[str, Stored], expected: Mapping[str, torch.Tensor], file: object) -> None:
    """Raises ModelError unless the header of a safetensors file has the expected names and shapes and no others.

    expected: may be on the meta device.
    """
    for name, ours in expected.items():
        if name not in header:
            raise ModelError(f"{file}: weight {name} is missing", remedy=AGAIN)
        if header[name].shape != tuple(ours.shape):
            raise _other_shape(f"{file}: weight {name}", header[name].shape, ours)
    # A weight that is left over means that the configuration describes another network.
    if len(header) > len(expected):
        unknown = min(set(header) - set(expected))
        raise ModelError(f"{file}: unknown weight", got=shown(unknown).strip("'"), remedy="check config.yaml")


def fit_weights(
    weights: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    file: object,
    *,
    source: Callable[[str], str] = str,
    is_ignored: Callable[[str], bool] = lambda name: False,
    network: str = "the weights of the network",
    copy: bool = True,
) -> dict[str, torch.Tensor]:
    """Copies of `weights` on the CPU under the names of `expected`, in its dtypes and memory layouts.

    weights: the file's tensors by the file's names.
    expected: of the network, `state_dict()`; may be on the meta device.
    file: named in errors.
    source: gives the file's name for one of ours.
    is_ignored: whether a weight that the network lacks may be left out; all others are refused.
    network: what is expected in their place, for errors.
    copy: False takes the tensors themselves where their dtype and layout fit, for a network that is not trained.

    Raises ModelError that names a weight that is missing, unknown, of another shape or kind of number, or not finite.
    Dimensions of length 1 do not count: a convolution over one frame is a linear layer.
    """
    import torch

    pairs = {name: source(name) for name in expected}
    for name, theirs in pairs.items():
        if theirs not in weights:
            raise ModelError(f"{file}: weight {theirs} is missing", remedy=AGAIN)
        _check_form(weights[theirs], expected[name], f"{file}: weight {theirs}")
    used = set(pairs.values())
    for theirs in weights:
        if theirs not in used and not is_ignored(theirs):
            raise ModelError(f"{file}: weight {shown(theirs)} is not supported", expected=network)
    fitted = {}
    for name, theirs in pairs.items():
        ours = expected[name]
        given = weights[theirs].reshape(ours.shape)
        if not copy and given.dtype == ours.dtype and given.stride() == ours.stride():
            fitted[name] = given
            continue
        # Its strides hold the memory layout; `empty_like` of a meta tensor does the same ten times slower.
        fitted[name] = torch.empty_strided(ours.shape, ours.stride(), dtype=ours.dtype)
        fitted[name].copy_(given)
    check_numbers({pairs[name]: tensor for name, tensor in fitted.items()}, file)
    return fitted


def check_numbers(weights: Mapping[str, torch.Tensor], file: object, remedy: str = AGAIN) -> None:
    """Raises ModelError for numbers that are not finite, and for variances below zero: their root is not a number."""
    import torch

    floats = {name: tensor for name, tensor in weights.items() if tensor.is_floating_point()}
    # One pass over the numbers without a copy: a sum is finite only if all its terms are.
    sums = torch.stack([tensor.sum() for tensor in floats.values()]) if floats else torch.zeros(0)
    for tensor_is_sound, (name, tensor) in zip(sums.isfinite().tolist(), floats.items(), strict=True):
        # A sum of large numbers may overflow though they are finite.
        if not tensor_is_sound and not bool(tensor.isfinite().all()):
            raise ModelError(f"{file}: weight {name} is not finite", remedy=remedy)
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise ModelError(f"{file}: weight {name} is negative", expected="variances, 0 or more", remedy=remedy)


@contextmanager
def enough_memory(file: object) -> Iterator[None]:
    """Raises ModelError in place of whatever numpy, torch or Python raise when the memory does not suffice."""
    try:
        yield
    except MemoryError:
        raise _no_memory(file) from None
    except RuntimeError as error:
        # On the CPU torch has no class of its own for this: "DefaultCPUAllocator: can't allocate memory".
        if "allocate memory" not in str(error) and "out of memory" not in str(error):
            raise
        raise _no_memory(file) from None


def _no_memory(file: object) -> ModelError:
    return ModelError(f"{file}: the memory does not suffice for this model", remedy="use a smaller model")


def _check_form(tensor: torch.Tensor, ours: torch.Tensor, what: str) -> None:
    """Raises ModelError unless the tensor has our shape and kind of number."""
    import torch

    if _lengths(tensor.shape) != _lengths(ours.shape):
        raise _other_shape(what, tuple(tensor.shape), ours)
    kinds: tuple[torch.dtype, ...] = (torch.int64, torch.int32)
    if ours.is_floating_point():
        kinds = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    if tensor.dtype not in kinds:
        expected = ", ".join(str(kind).removeprefix("torch.") for kind in kinds)
        raise ModelError(f"{what} is of another kind", got=tensor.dtype, expected=expected)


def _lengths(shape: torch.Size) -> list[int]:
    return [length for length in shape if length != 1]


def _other_shape(what: str, got: tuple[int, ...], ours: torch.Tensor) -> ModelError:
    return ModelError(f"{what} has another shape", got=got, expected=tuple(ours.shape))
