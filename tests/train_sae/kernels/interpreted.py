"""Once this is imported, kernels that are defined run in Triton's interpreter, in a fraction of its own time.

Within a kernel, each call of another function replaces Triton's language by the interpreter's again, and leaves it so.
Once for each module that holds such functions is enough; kernels themselves still do it at every launch.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"

from triton.runtime import interpreter

_patch = interpreter._patch_lang
_patched: set[int] = set()


def _call(self: interpreter.InterpretedFunction, *arguments: object, **named: object) -> object:
    if id(self.fn.__globals__) not in _patched:
        _patch(self.fn)
        _patched.add(id(self.fn.__globals__))
    return self.rewrite()(*arguments, **named)


interpreter.InterpretedFunction.__call__ = _call
