"""Machine code that counts and adds up numbers while a chunk is written, without the interpreter's lock.

It is written in LLVM's own language because a worker begins within a second: llvmlite has it ready in 0.1 s, where
numba takes 0.5 to 1 s before its first call, as long as converting 200 MB. Nothing in it may be reordered, so its sums
have the same bits on all processors.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from storagering.types import Array

#: Sums that are added up side by side.
LANES = 256
#: Codes of which it is known together whether any was met.
GROUP = 128

_TALLY = """
define void @tally(ptr noalias %words, i64 %size, i64 %step, i64 %shift, ptr noalias %counts, ptr noalias %seen) {
entry:
  %some = icmp sgt i64 %size, 0
  br i1 %some, label %next, label %done
next:
  %n = phi i64 [ 0, %entry ], [ %after, %next ]
  %index = mul i64 %n, %step
  %from = getelementptr i32, ptr %words, i64 %index
  %short = load i32, ptr %from, align 1
  %word = zext i32 %short to i64
  %code = lshr i64 %word, %shift
  %fourfold = shl i64 %code, 2
  %turn = and i64 %n, 3
  %place = or i64 %fourfold, %turn
  %to = getelementptr i32, ptr %counts, i64 %place
  %before = load i32, ptr %to, align 4
  %more = add i32 %before, 1
  store i32 %more, ptr %to, align 4
  %group = lshr i64 %code, 7
  %mark = getelementptr i8, ptr %seen, i64 %group
  store i8 1, ptr %mark, align 1
  %after = add nuw nsw i64 %n, 1
  %again = icmp slt i64 %after, %size
  br i1 %again, label %next, label %done
done:
  ret void
}

define i64 @collect(ptr noalias %counts, ptr noalias %seen, i64 %groups, ptr noalias %codes, ptr noalias %totals) {
entry:
  br label %group
group:
  %g = phi i64 [ 0, %entry ], [ %g.after, %ended ]
  %found = phi i64 [ 0, %entry ], [ %found.ended, %ended ]
  %mark = getelementptr i8, ptr %seen, i64 %g
  %met = load i8, ptr %mark, align 1
  %any = icmp ne i8 %met, 0
  br i1 %any, label %within, label %ended
within:
  store i8 0, ptr %mark, align 1
  %first = shl i64 %g, 7
  br label %code
code:
  %n = phi i64 [ 0, %within ], [ %after, %code ]
  %number = phi i64 [ %found, %within ], [ %number.after, %code ]
  %code.n = or i64 %first, %n
  %place = shl i64 %code.n, 2
  %at = getelementptr i32, ptr %counts, i64 %place
  %four = load <4 x i32>, ptr %at, align 4
  %wide = zext <4 x i32> %four to <4 x i64>
  %total = call i64 @llvm.vector.reduce.add.v4i64(<4 x i64> %wide)
  store <4 x i32> zeroinitializer, ptr %at, align 4
  %to.code = getelementptr i64, ptr %codes, i64 %number
  store i64 %code.n, ptr %to.code, align 8
  %to.total = getelementptr i64, ptr %totals, i64 %number
  store i64 %total, ptr %to.total, align 8
  %counted = icmp ne i64 %total, 0
  %one = zext i1 %counted to i64
  %number.after = add nuw nsw i64 %number, %one
  %after = add nuw nsw i64 %n, 1
  %again = icmp slt i64 %after, 128
  br i1 %again, label %code, label %ended
ended:
  %found.ended = phi i64 [ %found, %group ], [ %number.after, %code ]
  %g.after = add nuw nsw i64 %g, 1
  %g.again = icmp slt i64 %g.after, %groups
  br i1 %g.again, label %group, label %done
done:
  ret i64 %found.ended
}

declare i64 @llvm.vector.reduce.add.v4i64(<4 x i64>)
"""

#: NAME adds up what TERM makes of a number (double %wide) of type KIND, which WIDEN has made a double.
_LANES = """
define void @NAME(ptr noalias %numbers, i64 %size, double %mean, ptr noalias %lanes) {
entry:
  %some = icmp sgt i64 %size, 0
  br i1 %some, label %row, label %done
row:
  %start = phi i64 [ 0, %entry ], [ %row.after, %ended ]
  %left = sub nsw i64 %size, %start
  %full = icmp sgt i64 %left, 256
  %width = select i1 %full, i64 256, i64 %left
  %here = getelementptr KIND, ptr %numbers, i64 %start
  br label %lane
lane:
  %n = phi i64 [ 0, %row ], [ %after, %lane ]
  %from = getelementptr KIND, ptr %here, i64 %n
  %number = load KIND, ptr %from, align 1
  WIDEN
  TERM
  %to = getelementptr double, ptr %lanes, i64 %n
  %before = load double, ptr %to, align 8
  %sum = fadd double %before, %term
  store double %sum, ptr %to, align 8
  %after = add nuw nsw i64 %n, 1
  %again = icmp slt i64 %after, %width
  br i1 %again, label %lane, label %ended
ended:
  %row.after = add nuw nsw i64 %start, 256
  %row.again = icmp slt i64 %row.after, %size
  br i1 %row.again, label %row, label %done
done:
  ret void
}
"""
_KINDS = {
    "float": "%wide = fpext float %number to double",
    "double": "%wide = fadd double %number, -0.0",  # itself
}
_TERMS = {
    "sum": "%term = fadd double %wide, -0.0",
    "squares": "%distance = fsub double %wide, %mean\n  %term = fmul double %distance, %distance",
}


class _Kernels(NamedTuple):
    """The functions, and what must live as long as they do."""

    functions: dict[str, Any]
    engine: Any


def tally(words: Array, shift: int, counts: Array, seen: Array) -> None:
    """Count the codes ``words >> shift``.

    Each has four counts, which are used in turn: so a number that comes again and again need not wait for what was
    stored just before.

    Args:
        words: uint32, perhaps with gaps in between.
        counts: uint32 (4 x codes).
        seen: bool (codes / `GROUP`): becomes true where a code was met.
    """
    pointers = counts.ctypes.data, seen.ctypes.data
    _load().functions["tally"](words.ctypes.data, len(words), words.strides[0] // words.itemsize, shift, *pointers)


def collect(counts: Array, seen: Array) -> tuple[Array, Array]:
    """The codes that were met, rising, and their counts (both int64); all counts are 0 again."""
    size = int(np.count_nonzero(seen)) * GROUP + 1
    codes, totals = np.empty(size, np.int64), np.empty(size, np.int64)
    pointers = codes.ctypes.data, totals.ctypes.data
    found = _load().functions["collect"](counts.ctypes.data, seen.ctypes.data, len(seen), *pointers)
    return codes[:found], totals[:found]


def add_up(numbers: Array, lanes: Array, mean: float | None = None) -> None:
    """Add number n of float32 or float64 to sum ``n % LANES`` (float64), or its squared distance from ``mean``."""
    name = f"{'sum' if mean is None else 'squares'}_{'float' if numbers.dtype == np.float32 else 'double'}"
    _load().functions[name](numbers.ctypes.data, len(numbers), mean or 0.0, lanes.ctypes.data)


_loaded: list[_Kernels] = []


@cache
def _load() -> _Kernels:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    text = _TALLY
    for kind, widen in _KINDS.items():
        for name, term in _TERMS.items():
            made = _LANES.replace("NAME", f"{name}_{kind}").replace("KIND", kind)
            text += made.replace("WIDEN", widen).replace("TERM", term)
    module = llvm.parse_assembly(text)
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    integer, pointer, none = ctypes.c_int64, ctypes.c_void_p, None
    kinds: dict[str, tuple[Any, ...]] = {
        "tally": (none, pointer, integer, integer, integer, pointer, pointer),
        "collect": (integer, pointer, pointer, integer, pointer, pointer),
    }
    kinds |= {f"{n}_{k}": (none, pointer, integer, ctypes.c_double, pointer) for n in _TERMS for k in _KINDS}
    functions = {n: ctypes.CFUNCTYPE(*kind)(engine.get_function_address(n)) for n, kind in kinds.items()}
    _loaded.append(_Kernels(functions, engine))  # for ever: another thread may have loaded its own just now
    return _loaded[-1]
