"""The HTTP process' part: the prompt stands before a given answer, its tokens without log-probabilities.

SGLang's own echo would have them computed, by a server that does not read the prompt. The generation prompt's tokens
have the log-probability 0: the template writes them, whatever the model. lm-eval counts the white space that it ends
with as the answer's.
"""

from __future__ import annotations

from psserve.contracts.given import GIVEN, OPENING
from psserve.engine.fixes.logprobs import Entry, place, special_tokens
from psserve.engine.handover.sglang.http_process import (
    Completion,
    CompletionRequest,
    CompletionServing,
    LogProbs,
    TokenizerManager,
)
from psserve.engine.hooks import Hook, Kind


def _with_prompt(
    answer: Completion, serving: CompletionServing, request: CompletionRequest, *rest: object, **named: object
) -> None:
    """AFTER `OpenAIServingCompletion._build_completion_response`."""
    params = request.custom_params or {}
    if not params.get(GIVEN):
        return
    manager = serving.tokenizer_manager
    skip = request.skip_special_tokens
    text = manager.tokenizer.decode(request.prompt, skip_special_tokens=skip)
    entries = _entries(manager, request.prompt, skip)
    for choice in answer.choices:
        choice.text = text + choice.text
        if choice.logprobs is not None:
            _put_before(choice.logprobs, entries, params[OPENING], len(text))


def _entries(manager: TokenizerManager, tokens: list[int], skip: bool) -> list[Entry]:
    """The prompt's tokens, which know where they begin."""
    entries = manager.detokenize_logprob_tokens([None] * len(tokens), tokens, True)
    place(entries, 0, special_tokens(manager.tokenizer) if skip else ())
    return entries


def _put_before(logprobs: LogProbs, entries: list[Entry], opening: int, length: int) -> None:
    """`opening`: tokens of the generation prompt. `length`: characters by which all that follows is further on."""
    unknown = [None] * (len(entries) - opening)
    certain = [text for _, _, text in entries[len(unknown) :]]
    logprobs.tokens[:0] = [text for _, _, text in entries]
    logprobs.text_offset = [getattr(text, "offset", -1) for _, _, text in entries] + [
        offset + length for offset in logprobs.text_offset
    ]
    logprobs.token_logprobs[:0] = [*unknown, *(0.0 for _ in certain)]
    if logprobs.top_logprobs:
        logprobs.top_logprobs[:0] = [*unknown, *({text: 0.0} for text in certain)]


def hooks() -> tuple[Hook, ...]:
    """The hook that a decode server needs."""
    serving = "sglang.srt.entrypoints.openai.serving_completions.OpenAIServingCompletion"
    return (Hook(f"{serving}._build_completion_response", Kind.AFTER, _with_prompt),)
