"""What all tests of one process share."""

import dataclasses
import os
from importlib.util import find_spec

from hypothesis import settings

settings.register_profile("untimed", settings(deadline=None))
settings.load_profile("untimed")

if os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None:
    import torch
    from triton.runtime.interpreter import interpreter_builder

    # Without debugging, the interpreter computes checks of overflow and drops what they find: half
    # of its time.
    assert not interpreter_builder.options.debug
    interpreter_builder.options = dataclasses.replace(
        interpreter_builder.options, sanitize_overflow=False
    )
    # What no kernel has written is NaN, or the largest integer.
    torch.use_deterministic_algorithms(True, warn_only=True)
