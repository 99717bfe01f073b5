"""The decorator of the kernels."""

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


def kernel(*constants: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function with Triton, the named arguments being known at compile time.

    Kernels carry no annotations of their own: the hook that checks shapes in tests wraps annotated functions, and
    Triton could not read the source of a wrapped one.
    """

    def compile_it(function: Callable[..., Any]) -> Any:
        function.__annotations__ = dict.fromkeys(constants, tl.constexpr)
        compiled = triton.jit(function)
        if hasattr(compiled, "rewrite"):  # the interpreter runs a rewritten function, which has lost them
            compiled.rewrite().__annotations__ = function.__annotations__
        return compiled

    return compile_it


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n and 16, which is the least that reductions are tuned for."""
    return max(16, triton.next_power_of_2(n))
