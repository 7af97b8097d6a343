"""Answers whose first tokens are given: the module reads them as if it had written them, and says how likely each was.

The router cuts a prompt with an answer in it in two (psserve/router/answers/given.py). The prompt alone is handed over
as ever (handover/__init__.py); the answer is in the request's `custom_params`:

    decode server
    1  each step    ForwardBatch.init_new             -> scheduler: which rows have their next token given
    2  sampling     Sampler.forward                   -> scheduler: those take it, with its log-probability by the
                                                         model's own logits, whatever others in the batch ask for
    3  result       Req.update_finish_state           -> scheduler: no given token ends an answer
    4  the end      OpenAIServingCompletion
                      ._build_completion_response     -> echo: the prompt stands before the answer, as `echo` wants it

Which token is next follows from the length of what the module has read, so a request that was retracted goes on where
it was, and nothing waits for a GPU. After the last given token a request is like any other.
"""

from __future__ import annotations

from psserve.engine.given import echo, scheduler
from psserve.engine.hooks import Hook


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs."""
    return scheduler.hooks() + echo.hooks()
