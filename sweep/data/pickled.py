"""Pickled dictionaries of NumPy arrays, read without calling anything of what the file names.

A pickle names functions and has them called. Here what it names is only a stand-in, which knows what NumPy's pickles
ask of the real one, for arrays of whole numbers, and refuses the rest.
"""

import pickle
import pickletools
from dataclasses import dataclass
from io import BytesIO

import numpy as np

_NAMES = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    _NAMES |= {(f"{_core}.multiarray", "_reconstruct"), (f"{_core}.numeric", "_frombuffer")}

_WHOLE_NUMBERS = {f"{sign}{size}" for sign in "iu" for size in (1, 2, 4, 8)}
_MOST_TUPLES = 1000
_BYTE_ORDERS = ("<", ">", "|", "=")


def _text(value: str | bytes) -> str:
    """Python 2's strings arrive as bytes."""
    return value.decode("latin-1") if isinstance(value, bytes) else value


class _Kind:
    """Stands for a `numpy.dtype`: whole numbers of one size, then told their byte order."""

    __slots__ = ("dtype",)

    def __init__(self, code: str):
        if code not in _WHOLE_NUMBERS:
            raise pickle.UnpicklingError(f"holds an array of {code!r}, not of whole numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: object) -> None:
        match state:
            case (3 | 4, str() | bytes() as order, None, None, None, *_) if _text(order) in _BYTE_ORDERS:
                self.dtype = np.dtype(f"{_text(order)}{self.dtype.str[1:]}")
            case _:
                raise pickle.UnpicklingError("holds an array of structures, not of whole numbers")


class _Array:
    """Stands for a `numpy.ndarray`: empty, then told its shape, kind, order and bytes."""

    __slots__ = ("values",)

    def __setstate__(self, state: object) -> None:
        match state:
            case (1, tuple() as shape, _Kind() as kind, int() as fortran, bytes() | bytearray() as content):
                self.values = np.frombuffer(content, kind.dtype).reshape(shape, order="F" if fortran else "C")
            case _:
                raise pickle.UnpicklingError("holds an array that NumPy would not have written")


@dataclass(frozen=True, slots=True)
class _Named:
    """Stands for a function or class that a file names."""

    name: str

    def __call__(self, *arguments: object) -> object:
        match self.name, arguments:
            case "encode", (str() as text, "latin1"):  # how Python 3 writes bytes for Python 2
                return text.encode("latin-1")
            case "dtype", (str() | bytes() as code, *_):
                return _Kind(_text(code))
            case "_reconstruct", (_Named(name="ndarray"), (0,), b"b"):
                return _Array()
            case "_frombuffer", (
                bytes() | bytearray() as content,
                _Kind() as kind,
                tuple() as shape,
                "C" | "F" as order,
            ):
                array = _Array()
                array.__setstate__((1, shape, kind, order == "F", content))
                return array
        raise pickle.UnpicklingError(f"calls {self.name} as no pickled array does")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _Named:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"names {module}.{name}, which no pickled array does")
        return _Named(name)


def _check_opcodes(content: bytes) -> None:
    """Refuses what Python's unpickler, which trusts its input, would not survive.

    It makes room for all numbers up to an object's own, so none may be beyond the objects so far; and tuples nested by
    the thousand overflow the C stack when one is a dictionary's key.
    """
    tuples = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        tuples += opcode.name.startswith("TUPLE")
        if tuples > _MOST_TUPLES:
            raise pickle.UnpicklingError(f"holds more than {_MOST_TUPLES} tuples, where an array has five")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument is not None and argument > count:
            raise pickle.UnpicklingError(f"numbers an object {argument} of at most {count}")


def arrays(content: bytes) -> dict[str, object]:
    """Reads a pickled dictionary, of Python 2 or 3, protocol 0 to 5, whose arrays are of whole numbers.

    Raises:
      pickle.UnpicklingError: it names what no pickled array does, or is no such dictionary. Nothing is run.
      Exception: what Python raises for a damaged pickle.
    """
    _check_opcodes(content)
    batch = _Unpickler(BytesIO(content), encoding="bytes").load()
    if not isinstance(batch, dict):
        raise pickle.UnpicklingError(f"holds a {type(batch).__name__}, not a dictionary")
    return {_text(key): value.values if isinstance(value, _Array) else value for key, value in batch.items()}
