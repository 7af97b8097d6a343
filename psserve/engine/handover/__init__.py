"""The hand-over of a prompt from the base to a module: whose KV is it (psserve/rule.py), and which hook keeps it so.

A request's way through SGLang, of which psserve changes what is right of the arrow. It is *fresh* while it has no
output; n is its prompt's length, x[n-1] the prompt's last token.

    prefill server
    1  receive      Scheduler.handle_generate_request           -> prefill: the prompt loses x[n-1]; the base never
                                                                   reads it. One token stays: SGLang needs some prompt
    decode server
    2  prealloc     DecodePreallocQueue._pre_alloc_fill_len,    -> decode: slots for n-1 tokens, and KV asked for n-1
                      ._rebootstrap_prefill_len
    3  match        DecodePreallocQueue._match_prefix_and_lock  -> decode: at most n-1 tokens, though the tree may hold
                                                                   x[n-1] from a longer prompt: its KV is the base's
    4  transfer     (the base's KV arrives, all but what 3 matched)
    5  commit       DecodeTransferQueue._commit_transfer_to_req -> decode: what the base sampled is dropped; of one
                                                                   token, so is the KV: the module computes that itself
    6  prebuilt     ScheduleBatch.prepare_for_prebuilt          -> decode: the batch is shown x[:-1], whose KV is there
                    ScheduleBatch.process_prebuilt              -> decode: x[:-1] enters the tree, in whole pages; x[-1]
                                                                   is queued as if just emitted, past the grammar
                    process_batch_result_prebuilt               -> decode: no output yet, so none is streamed
    7  first step   ScheduleBatch.cumulate_penalty_output_tokens -> penalties: x[-1], which it reads, is no output
                    (the module reads x[-1] over the base's KV and gives y[0]; from here on nothing is changed)
    8  finish,      release_kv_cache                            -> decode: slots are freed, never given to the tree:
       abort                                                       from n-1 on they are the module's
    9  retract      release_kv_cache                            -> as 8; a copy of the KV waits in host memory
       resume       DecodePreallocQueue.resume_retracted_reqs   -> fixes/retraction: it owns all its slots, SGLang's
                                                                   match at this point leaks them

`purity.py` checks, where that is asked for, that all this has kept an idle server's tree pure. `sglang/` is what all
of it believes of SGLang, `releases.py` makes sure of it when a server starts.
"""
