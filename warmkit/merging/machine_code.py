"""Machine code of the kernels: compiled by numba once, kept on disk, and loaded without numba, whose import takes longer than
a small merge.

A function of `compiled` or of a `compiled_*` beside it is compiled for the types of its arguments. Its object code
lies beside the package, or in the user's cache, under the processor's name; it is made anew where the source, numba or
llvmlite are others, or where a byte of it has changed. Functions allocate nothing and return an integer or nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import struct
import threading
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Arguments: TypeAlias = tuple[Any, ...]
Function: TypeAlias = Callable[[Arguments], int]

NUMBERS = {"i8": "q", "u8": "Q", "u4": "Q", "f4": "d", "f8": "d"}  # and how `struct` packs them in eight bytes
ENTRY = "warmkit_entry"
FAILED = (1 << 64) - 1


class Kernel:
    """A compiled function; it runs without the interpreter lock.

    Args:
        module: Of `warmkit.merging`.
        name: Of the function there.
    """

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name
        self._compiled: dict[tuple[Any, ...], Function] = {}
        self._lock = threading.Lock()

    def __call__(self, *arguments: Any) -> int:
        key = tuple([(x.dtype.num, x.ndim, x.flags.c_contiguous) if isinstance(x, np.ndarray) else type(x) for x in arguments])
        if key not in self._compiled:
            with self._lock:
                if key not in self._compiled:
                    self._compiled[key] = _load(self._module, self._name, tuple(map(_kind, arguments)))
        return self._compiled[key](arguments)


class Kernels:
    """The compiled functions of a module, as attributes."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Kernel:
        if name.startswith("_"):
            raise AttributeError(name)
        kernel = Kernel(self._module, name)
        setattr(self, name, kernel)
        return kernel


elements = Kernels("compiled")
edits = Kernels("compiled_edits")
low_rank = Kernels("compiled_low_rank")
codes = Kernels("compiled_codes")
residuals = Kernels("compiled_residuals")
turns = Kernels("compiled_turns")


def _kind(argument: Any) -> str:
    """Return the type of an argument: `f81c` is a float64 array of one dimension, contiguous; `f8` a number."""
    if isinstance(argument, np.ndarray):
        return f"{argument.dtype.str[1:]}{argument.ndim}{'c' if argument.flags.c_contiguous else 'a'}"
    if isinstance(argument, np.generic):
        return argument.dtype.str[1:]
    return "f8" if isinstance(argument, float) else "i8"


def _load(module: str, name: str, kinds: tuple[str, ...]) -> Function:
    """Return a function from the cache, or compile it and put it there."""
    code = _CachedCode(f"{module}.{name}-{'-'.join(kinds)}")
    machine_code = code.read()
    if machine_code is None:
        machine_code = _compile(module, name, kinds)
        code.write(machine_code)
    return _callable(machine_code, kinds)


def _compile(module: str, name: str, kinds: tuple[str, ...]) -> bytes:
    """Return the object code of a function, with an entry that takes the address of packed arguments."""
    from importlib import import_module

    import llvmlite.binding as llvm
    from numba import from_dtype, types

    def numba_type(kind: str) -> Any:
        plain = from_dtype(np.dtype(kind[:2]))
        return plain if kind in NUMBERS else types.Array(plain, int(kind[2]), kind[3].upper())

    function = getattr(import_module(f"warmkit.merging.{module}"), name)
    signature = tuple(map(numba_type, kinds))
    function.compile(signature)
    compiled = llvm.parse_assembly(function.inspect_llvm(signature))
    foreign = [each.name for each in compiled.functions if each.is_declaration and not each.name.startswith("llvm.")]
    if foreign:
        raise AssertionError(f"{module}.{name} calls {', '.join(foreign)}, which numba alone provides")
    compiled.link_in(llvm.parse_assembly(_entry(function.overloads[signature].fndesc.llvm_func_name, kinds)))
    return _machine().emit_object(compiled)


def _entry(symbol: str, kinds: tuple[str, ...]) -> str:
    """Return the code of a function from packed arguments to what numba's returns, or FAILED.

    A number is packed as it is, an array as the address of numpy's object, whose first fields numpy keeps as they are: after
    Python's own, the address of the elements, the number of dimensions, and the addresses of shape and strides. numba takes an
    array as two objects that would keep it alive, its number of elements, bytes of one, address, shape and strides; and before
    all arguments the places of a result and of an error.
    """
    from llvmlite import ir

    whole, short, byte = ir.IntType(64), ir.IntType(32), ir.IntType(8)
    place = byte.as_pointer()
    numbers = {"i8": whole, "u8": whole, "u4": short, "f4": ir.FloatType(), "f8": ir.DoubleType()}

    def load(start: Any, offset: int, what: Any) -> Any:
        return build.load(build.bitcast(build.gep(start, [whole(offset)]), what.as_pointer()))

    def array(number: int, kind: str) -> list[Any]:
        start, header, dimensions = load(entry.args[0], 8 * number, place), object.__basicsize__, int(kind[2])
        shape, strides = (
            [load(load(start, header + field, place), 8 * each, whole) for each in range(dimensions)] for field in (16, 24)
        )
        size = whole(1)
        for each in shape:
            size = build.mul(size, each)
        return [place(None), place(None), size, whole(int(kind[1])), load(start, header, place), *shape, *strides]

    def number(number: int, kind: str) -> Any:
        value = load(entry.args[0], 8 * number, ir.DoubleType() if kind[0] == "f" else whole)
        return {"u4": build.trunc, "f4": build.fptrunc}[kind](value, numbers[kind]) if kind in ("u4", "f4") else value

    module = ir.Module()
    entry = ir.Function(module, ir.FunctionType(whole, [place]), ENTRY)
    build = ir.IRBuilder(entry.append_basic_block())
    result, error = build.alloca(whole), build.alloca(place)
    build.store(whole(0), result)
    values: list[Any] = [build.bitcast(each, place) for each in (result, error)]
    for at, kind in enumerate(kinds):
        values += [number(at, kind)] if kind in NUMBERS else array(at, kind)
    function = ir.Function(module, ir.FunctionType(short, [each.type for each in values]), symbol)
    failed = build.icmp_signed("!=", build.call(function, values), short(0))
    build.ret(build.select(failed, whole(FAILED), build.load(result)))
    return str(module)


def _machine() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    features = llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3, jit=True)


_ENGINES: list[Any] = []  # own the memory of the functions


def _callable(machine_code: bytes, kinds: tuple[str, ...]) -> Function:
    """Return a function that packs its arguments and runs object code."""
    import llvmlite.binding as llvm

    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    _ENGINES.append(engine)
    run = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_char_p)(engine.get_function_address(ENTRY))
    pack = struct.Struct("".join(NUMBERS.get(kind, "Q") for kind in kinds)).pack

    def call(arguments: Arguments) -> int:
        result = run(pack(*[id(each) if isinstance(each, np.ndarray) else each for each in arguments]))
        if result == FAILED:
            raise RuntimeError(f"machine code failed on {', '.join(kinds)}")
        return result

    return call


class _CachedCode:
    """The cached object code of a function, for this processor.

    The file has a line each for the digest of what follows and for what it was made from; then the code.
    """

    def __init__(self, name: str) -> None:
        self._name = f"{name}.{_processor()}.machine-code"

    def read(self) -> bytes | None:
        """Return the code; None where there is none, or it is of other sources, or damaged."""
        for folder in _folders():
            with contextlib.suppress(OSError, ValueError):
                digest, rest = (folder / self._name).read_bytes().split(b"\n", 1)
                made_from, machine_code = rest.split(b"\n", 1)
                if (digest, made_from) == (_digest(rest), _origin()):
                    return machine_code
        return None

    def write(self, machine_code: bytes) -> None:
        """Put the code into the first folder that takes it; if none does, the next process compiles it again."""
        rest = _origin() + b"\n" + machine_code
        for folder in _folders():
            partial = folder / f".{self._name}.{os.getpid()}"
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                partial.write_bytes(_digest(rest) + b"\n" + rest)
                partial.replace(folder / self._name)
                return


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


@cache
def _origin() -> bytes:
    """Return a digest of what machine code depends on, besides the processor."""
    sizes = [Path(__file__).with_name(name) for name in ("kernels.py", "low_rank.py")]
    sources = [*sorted(Path(__file__).parent.glob("compiled*.py")), *sizes, Path(__file__)]
    for package in ("numba", "llvmlite"):
        places = getattr(find_spec(package), "submodule_search_locations", None) or ()
        sources += [Path(place) / "_version.py" for place in places]
    return _digest(b"".join(file.read_bytes() for file in sources))


@cache
def _processor() -> str:
    import llvmlite.binding as llvm

    described = f"{llvm.get_process_triple()} {llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
    return _digest(described.encode())[:16].decode()


def _folders() -> list[Path]:
    """Return where machine code may lie: numba's folder, where one is set; else the package's own, then the user's."""
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        return [Path(named)]
    folders = [Path(__file__).parent / "__pycache__"]
    with contextlib.suppress(RuntimeError):  # a user without a home
        folders.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "warmkit")
    return folders
