"""The decorator of the kernels, and the sizes of their blocks."""

import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


def kernel(*constants: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function with Triton, the named arguments being known at compile time.

    Kernels have no annotations for the hook that checks shapes in tests. It wraps them anyway, so Triton is given the
    function inside, to find its source and the functions that it calls.
    """

    def compile_it(function: Callable[..., Any]) -> Any:
        function = inspect.unwrap(function)
        function.__annotations__ = dict.fromkeys(constants, tl.constexpr)
        compiled = triton.jit(function)
        if hasattr(compiled, "rewrite"):  # the interpreter runs a rewritten function, which has lost them
            compiled.rewrite().__annotations__ = function.__annotations__
        return compiled

    return compile_it


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n and at least 16, the smallest that reductions are tuned for."""
    return max(16, triton.next_power_of_2(n))


def warps_of(n_elements: int, per_thread: int) -> int:
    """Warps of a program whose largest block has `n_elements`, if each thread holds `per_thread` of them."""
    return min(16, max(4, n_elements // (32 * per_thread)))
