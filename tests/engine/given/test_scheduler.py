"""Given tokens take the place of sampled ones, in SGLang's own sampler and in requests of its own."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from psserve.contracts.given import GIVEN
from psserve.engine.fixes import retraction
from psserve.engine.given import hooks, scheduler
from psserve.engine.given.scheduler import NextGiven, next_given
from psserve.engine.handover import decode
from psserve.engine.settings import NegativeControl
from tests.engine.handover.decode_server import TOKENIZER, DecodeServer, expected, sglang_configured
from tests.engine.hooked import hooked

VOCAB = 50
LOGITS = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(1)) * 4
MODEL = LOGITS.log_softmax(-1)


@pytest.fixture(autouse=True, scope="module")
def _hooked() -> Iterator[None]:
    with sglang_configured(), hooked([*decode.hooks(NegativeControl.NONE), *retraction.hooks(), *hooks()]):
        yield


def sampling(temperature: float, given: NextGiven | None) -> Any:
    """SGLang's sampling of three requests; greedy at temperature 0."""
    from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo

    info = SamplingBatchInfo(
        temperatures=torch.full((3, 1), temperature or 1.0),
        top_ps=torch.ones(3),
        top_ks=torch.full((3,), 1 if not temperature else VOCAB, dtype=torch.int32),
        min_ps=torch.zeros(3),
        is_all_greedy=not temperature,
        is_any_greedy=not temperature,
        need_top_p_sampling=False,
        need_top_k_sampling=False,
        need_min_p_sampling=False,
        vocab_size=VOCAB,
        device="cpu",
    )
    vars(info)[scheduler._NEXT] = given
    return info


def sample(temperature: float, given: NextGiven | None, top: int = 0) -> tuple[list[int], Any]:
    """The chosen tokens, and SGLang's log-probabilities of them."""
    from sglang.srt.layers.logits_processor import LogitsProcessorOutput
    from sglang.srt.layers.logprob_processor import OutputLogprobProcessor
    from sglang.srt.layers.sampler import Sampler

    sampler = Sampler.__new__(Sampler)
    torch.nn.Module.__init__(sampler)
    vars(sampler).update(
        rl_on_policy_target=None,
        enable_deterministic=False,
        use_log_softmax_logprob=False,
        use_ascend_backend=False,
        tp_sync_group=None,
        output_logprob_processor=OutputLogprobProcessor(),
    )
    output = LogitsProcessorOutput(LOGITS.clone())
    positions = torch.arange(3)
    tokens = sampler(output, sampling(temperature, given), True, [top] * 3, [None] * 3, positions)
    return tokens.tolist(), output


def given_to(**tokens: int) -> NextGiven:
    """Row -> token: `given_to(row1=7)`."""
    rows = [int(name.removeprefix("row")) for name in tokens]
    return NextGiven(rows, torch.tensor(rows), torch.tensor([*tokens.values()]))


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_a_given_token_comes_with_the_models_own_log_probability(temperature: float) -> None:
    torch.manual_seed(0)
    stock, of_stock = sample(temperature, None)
    torch.manual_seed(0)
    unlikely = int(LOGITS[1].argmin())
    tokens, output = sample(temperature, given_to(row1=unlikely))
    assert tokens == [stock[0], unlikely, stock[2]]
    assert output.next_token_logprobs[1] == pytest.approx(float(MODEL[1, unlikely]), abs=1e-5)
    assert torch.equal(output.next_token_logprobs[[0, 2]], of_stock.next_token_logprobs[[0, 2]])


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_the_likeliest_tokens_are_the_models_own(temperature: float) -> None:
    tokens, output = sample(temperature, given_to(row0=3, row2=4), top=2)
    assert (tokens[0], tokens[2]) == (3, 4)
    for row in (0, 2):
        values, ids = MODEL[row].topk(2)
        assert [*output.next_token_top_logprobs_val[row]] == pytest.approx(values.tolist(), abs=1e-5)
        assert [*output.next_token_top_logprobs_idx[row]] == ids.tolist()


def test_without_log_probabilities_the_tokens_are_given_all_the_same() -> None:
    assert sample(0.0, given_to(row0=3, row1=4, row2=5))[0] == [3, 4, 5]


class GivingServer(DecodeServer):
    """A decode server whose sampler takes what is given."""

    def choose(self, batch: Any, tokens: torch.Tensor) -> torch.Tensor:
        found = next_given(batch)
        return tokens if found is None else tokens.index_copy(0, found.places, found.tokens)


PROMPT, END = [7, 3, 5, 2, 9], TOKENIZER.eos_token_id
ANSWER = [41, END, 43, END]


def continued(answer: list[int], count: int) -> list[int]:
    """What the module says after an answer that it has read itself."""
    from tests.engine.handover.decode_server import next_token

    kv, token, output = [float(token) for token in PROMPT[:-1]], PROMPT[-1], [*answer]
    for place in range(len(answer) + count):
        kv.append(token + 0.5)
        token = answer[place] if place < len(answer) else next_token(kv)
        output += [] if place < len(answer) else [token]
    return output


@pytest.fixture(params=[1, 4], ids=["pages of 1", "pages of 4"])
def server(request: pytest.FixtureRequest) -> Iterator[GivingServer]:
    server = GivingServer(request.param)
    yield server
    server.finish()
    server.check_idle()


def submit(server: DecodeServer, further: int) -> Any:
    return server.submit(PROMPT, len(ANSWER) + further, sampling={"custom_params": {GIVEN: ANSWER}})


def test_an_end_that_is_given_ends_nothing(server: GivingServer) -> None:
    req, other = submit(server, 2), server.submit(PROMPT, 6)
    server.run()
    assert list(req.output_ids) == continued(ANSWER, 2)
    assert list(other.output_ids) == expected(PROMPT, 6)


def test_nothing_comes_after_an_answer_to_which_nothing_is_to_come(server: GivingServer) -> None:
    req = submit(server, 0)
    server.run()
    assert list(req.output_ids) == ANSWER


def test_after_retraction_the_rest_is_given(server: GivingServer) -> None:
    req = submit(server, 2)
    server.admit()
    for _ in range(2):
        server.step()
    server.retract(req)
    server.resume()
    server.prebuild()
    server.finish()
    assert list(req.output_ids) == continued(ANSWER, 2)


def test_who_goes_away_while_an_answer_is_read_is_let_go(server: GivingServer) -> None:
    req = submit(server, 2)
    server.admit()
    server.step()
    server.abort(req)
    server.finish()
    assert len(req.output_ids) < len(ANSWER)


def test_batches_in_which_nothing_is_given_have_nothing_noted() -> None:
    server = DecodeServer()
    server.submit(PROMPT, 2)
    server.admit()
    server.running_batch.prepare_for_decode()
    assert next_given(server.running_batch) is None


def test_forward_batches_are_made_with_what_is_given() -> None:
    """By the hook, whose target has the requests and the information that the sampler gets."""
    info = SimpleNamespace(temperatures=torch.ones(1, 1))
    req = SimpleNamespace(sampling_params=SimpleNamespace(custom_params={GIVEN: [41, 42]}), origin_input_ids=PROMPT)
    batch = SimpleNamespace(reqs=[req], seq_lens_cpu=torch.tensor([len(PROMPT) + 1]), sampling_info=info)
    scheduler._note_next(object, batch)
    noted: NextGiven = vars(info)[scheduler._NEXT]
    assert (noted.rows, noted.places.tolist(), noted.tokens.tolist()) == ([0], [0], [42])
    batch.seq_lens_cpu = torch.tensor([len(PROMPT) + 2])
    scheduler._note_next(object, batch)
    assert vars(info)[scheduler._NEXT] is None
