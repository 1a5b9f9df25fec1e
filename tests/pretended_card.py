"""A card that nobody has: tensors that say they lie on one, and are computed on the CPU.

Their device is called `meta`, for torch asks no driver about it. Each operator passes `Card`, which
refuses what a card would refuse (a mix of devices, generators of another device; as `mps` also
float64 and operators without a kernel) and counts what makes the program wait for a card.
"""

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchgen
import yaml
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from n2n_lightning.devices import copies

CARD = torch.device("meta")
CPU = torch.device("cpu")
aten = torch.ops.aten

# They read the values of a card, or the number of values that a result has.
WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique_dim",
    "_unique2",
    "equal",
}
# They may mix a card with the CPU.
MOVING = {"_to_copy", "copy_", "set_", "lift_fresh"}


@cache
def kernels_on_mps() -> dict[str, bool]:
    """Return for each operator whether MPS has a kernel, by the list of the torch at hand.

    The source is native_functions.yaml, which torch itself is built from: an operator has one if it
    names MPS, is made of others (Composite), or is done by one that names MPS.
    """
    path = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
    entries = yaml.load(path.read_text(), yaml.CSafeLoader)
    named: dict[str, Any] = {entry["func"].partition("(")[0]: entry for entry in entries}

    def has(entry: Any) -> bool:
        if "structured_delegate" in entry:
            return has(named[entry["structured_delegate"]])
        dispatch = entry.get("dispatch", {"CompositeImplicitAutograd": ""})
        keys = {key.strip() for keys in dispatch for key in keys.split(",")}
        return "MPS" in keys or any(key.startswith("Composite") for key in keys)

    return {name: has(entry) for name, entry in named.items()}


class OnCard(Tensor):
    """A tensor that says it lies on the card."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnCard":
        tensor: OnCard = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=CARD,
        )
        tensor.held = held
        return tensor

    def __repr__(self) -> str:
        return f"OnCard({self.held!r})"

    # torch refuses these of a tensor on `meta`

    def item(self) -> Any:
        return aten._local_scalar_dense(self)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __bool__(self) -> bool:
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    __index__ = __int__

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None):
        return Card().run(operator, args, kwargs or {})


_Generator = torch.Generator
_SEEDS_ON_CARD: set[int] = set()  # of its generators, for operators get a copy of a generator


class _AnyGenerator(_Generator):
    """A generator that says it is on the device that was asked for."""

    def __new__(cls, device: Any = "cpu") -> "_AnyGenerator":
        self = super().__new__(cls)
        self.asked = torch.device(device)
        return self

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.asked

    def manual_seed(self, seed: int) -> "_AnyGenerator":
        super().manual_seed(seed)
        (_SEEDS_ON_CARD.add if self.asked == CARD else _SEEDS_ON_CARD.discard)(seed)
        return self


_tensor = torch.tensor
_lacks_float64 = copies.lacks_float64


def _any_tensor(values: Any, *, device: Any = None, **options: Any) -> Tensor:
    """Make a tensor as torch does, where `meta` is the card."""
    made = _tensor(values, **options)
    return made if device is None else made.to(device, non_blocking=True)


_autocast = torch.autocast


class _Autocast(_autocast):
    """Autocast of the card, done as that of the CPU."""

    def __init__(self, device_type: str, *args: Any, **options: Any) -> None:
        super().__init__("cpu" if device_type == CARD.type else device_type, *args, **options)


class Card(TorchDispatchMode):
    """While it lasts, `meta` is a card.

    Args:
        mps: it has neither float64 nor the operators that MPS lacks.

    Attributes:
        waits: what made the program wait for the card, and how often.
        operators: on the card, and how often each.
    """

    def __init__(self, mps: bool = False) -> None:
        super().__init__()
        self.mps = mps
        self.waits: Counter[str] = Counter()
        self.operators: Counter[str] = Counter()

    def __enter__(self) -> "Card":
        torch.Generator = _AnyGenerator  # type: ignore[misc]
        torch.autocast = _Autocast  # type: ignore[misc]
        torch.tensor = _any_tensor
        if self.mps:
            copies.lacks_float64 = lambda device: device == CARD
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.Generator = _Generator  # type: ignore[misc]
        torch.autocast = _autocast  # type: ignore[misc]
        torch.tensor = _tensor
        copies.lacks_float64 = _lacks_float64
        super().__exit__(*error)

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None):
        return self.run(operator, args, kwargs or {})

    def run(self, operator: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator on the CPU; its result lies where a card would have it."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = [tensor for tensor in tensors if not isinstance(tensor, OnCard)]
        on_card = len(here) < len(tensors)
        name = operator.overloadpacket.__name__
        target = CARD if on_card else CPU
        asked = kwargs.get("device")
        if asked is not None:
            target = torch.device(asked)
            kwargs = {**kwargs, "device": CPU}
        if name == "copy_" and not isinstance(args[0], OnCard):
            target = CPU
        self._refuse_mix(name, here, on_card)
        self._refuse_generator(name, kwargs.get("generator"), target)
        if on_card:
            self._count(name, args, here, target, kwargs)
        result = operator(*tree_map(_held, args), **tree_map(_held, kwargs))
        if target != CARD:
            return result
        if self.mps:
            self._refuse_on_mps(operator, name, result)
        self.operators[name] += 1
        if name.endswith("_") and isinstance(args[0], OnCard):
            return args[0]
        return tree_map(lambda one: OnCard(one) if isinstance(one, Tensor) else one, result)

    def _refuse_mix(self, name: str, here: list[Tensor], on_card: bool) -> None:
        several = [tensor for tensor in here if len(tensor.shape)]  # numbers may mix
        if on_card and several and name not in MOVING:
            raise AssertionError(f"{name}: some tensors are on the card, others on the CPU")

    def _refuse_generator(self, name: str, generator: Any, target: torch.device) -> None:
        if generator is None:
            return
        of_card = generator.initial_seed() in _SEEDS_ON_CARD
        if of_card != (target == CARD):
            raise AssertionError(f"{name}: a generator of another device draws on {target}")

    def _refuse_on_mps(self, operator: Any, name: str, result: Any) -> None:
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.dtype == torch.float64:
                raise AssertionError(f"{name}: MPS has no float64")
        overload = operator._overloadname
        full = name if overload == "default" else f"{name}.{overload}"
        if not kernels_on_mps().get(full, True):
            raise AssertionError(f"{full}: has no kernel on MPS")

    def _count(
        self, name: str, args: Any, here: list[Tensor], target: torch.device, kwargs: Any
    ) -> None:
        """Count an operator that the program has to wait for."""
        indices = tree_leaves(args[1:]) if name in ("index", "index_put_") else []
        masked = any(getattr(index, "dtype", None) == torch.bool for index in indices)
        to_cpu = name in MOVING and target == CPU
        blocking = name in ("_to_copy", "copy_") and not _non_blocking(args, kwargs)
        sent = blocking and bool(here)
        if name in WAITING or masked or to_cpu or sent:
            self.waits[name] += 1


def _non_blocking(args: Any, kwargs: Any) -> bool:
    return bool(kwargs.get("non_blocking") or (len(args) > 2 and args[2]))


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnCard) else value


def to_card(values: Any) -> Any:
    """Move tensors to the card, without a wait."""
    return tree_map(lambda one: OnCard(one) if isinstance(one, Tensor) else one, values)
