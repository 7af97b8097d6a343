from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from psserve.errors import ZooError
from psserve.zoo import Zoo
from psserve.zoo.synthetic.tokenizer import write_tokenizer
from psserve.zoo.synthetic.zoo import build_zoo, main

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def fingerprints(zoo: Zoo) -> list[str]:
    return [zoo.base.fingerprint, *(module.files[0].blake3 for module in zoo.modules())]


def test_the_same_seed_gives_the_same_zoo(session_zoo: Zoo, tmp_path: Path) -> None:
    again = build_zoo(tmp_path / "zoo", "qwen3", modules=("alpha", "beta"))
    assert fingerprints(again) == fingerprints(session_zoo)


def test_another_seed_gives_another_zoo(session_zoo: Zoo, tmp_path: Path) -> None:
    other = build_zoo(tmp_path / "zoo", "qwen3", modules=("alpha", "beta"), seed=1)
    assert not set(fingerprints(other)) & set(fingerprints(session_zoo))


def test_base_and_modules_all_differ(session_zoo: Zoo) -> None:
    weights = {session_zoo.base.files[0].blake3, *(module.files[0].blake3 for module in session_zoo.modules())}
    assert len(weights) == 3


def test_the_shape_can_be_chosen(tmp_path: Path) -> None:
    zoo = build_zoo(tmp_path / "zoo", "llama", ("one",), num_hidden_layers=2, vocab_size=600, dtype="bfloat16")
    assert (zoo.base.architecture, zoo.base.num_layers, zoo.base.vocab_size) == ("LlamaForCausalLM", 2, 600)
    assert zoo.base.dtype == "bfloat16"


def test_nothing_is_overwritten(session_zoo: Zoo) -> None:
    with pytest.raises(ZooError, match="not empty"):
        build_zoo(session_zoo.path)


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="reserved"):
        build_zoo(tmp_path / "zoo", modules=("auto",))
    assert list(tmp_path.iterdir()) == []


def test_the_tokenizer_is_the_same_in_another_process(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    write_tokenizer(tmp_path / "here", 4096)
    code = "import sys, pathlib; from psserve.zoo.synthetic.tokenizer import *; "
    code += "write_tokenizer(pathlib.Path(sys.argv[1]), 4096)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there")], check=True)
    for file in (tmp_path / "here").iterdir():
        assert (tmp_path / "there" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("text", ["What is 2+2?", "héllo 世界 🦙", "\n\t  x", "<|im_start|>user\nhi<|im_end|>"])
def test_every_text_survives_the_tokenizer(session_zoo: Zoo, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(session_zoo.base.path)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_have_the_ids_that_the_configuration_names(session_zoo: Zoo) -> None:
    tokenizer = AutoTokenizer.from_pretrained(session_zoo.base.path)
    assert session_zoo.base.eos_token_ids == (tokenizer.eos_token_id,)
    assert tokenizer.decode([tokenizer.eos_token_id]) == "<|im_end|>"
    assert len(tokenizer) == session_zoo.base.vocab_size


def test_a_conversation_is_a_prefix_of_its_continuation(session_zoo: Zoo) -> None:
    tokenizer = AutoTokenizer.from_pretrained(session_zoo.base.path)
    first = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    call = {"function": {"name": "weather", "arguments": {"city": "Paris"}}, "type": "function", "id": "1"}
    more = [
        *first,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "sunny", "tool_call_id": "1"},
    ]
    render = lambda messages: tokenizer.apply_chat_template(messages, tools=[WEATHER], tokenize=False)  # noqa: E731
    assert render(more).startswith(render(first))
    assert '{"name": "weather", "arguments": {"city": "Paris"}}' in render(more)
    assert "sunny" in render(more)
    assert render(first).count("Be brief.") == 1


def test_tools_are_rendered_only_when_given(session_zoo: Zoo) -> None:
    tokenizer = AutoTokenizer.from_pretrained(session_zoo.base.path)
    messages = [{"role": "user", "content": "Hi"}]
    plain = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert plain == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert '"name": "weather"' in tokenizer.apply_chat_template(messages, tools=[WEATHER], tokenize=False)


def test_the_command_builds_a_zoo_and_keeps_stdout_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "zoo"), "--architecture", "llama", "--modules", "one"]) == 0
    assert [module.name for module in Zoo.open(tmp_path / "zoo").modules()] == ["one"]
    assert capsys.readouterr().out == ""


def test_the_command_reports_an_error_in_one_line(session_zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(session_zoo.path)]) == 1
    assert "psserve: error:" in capsys.readouterr().err.splitlines()[-1]
