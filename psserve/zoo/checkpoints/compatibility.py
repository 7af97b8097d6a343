"""Whether a checkpoint can generate over the base's KV cache, and which base a cache belongs to (its fingerprint)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.checkpoints.architectures import TABLE, kv_fields
from psserve.zoo.checkpoints.checkpoint import Checkpoint
from psserve.zoo.checkpoints.completeness import check_tensors
from psserve.zoo.checkpoints.kv_scales import kv_scales
from psserve.zoo.checkpoints.safetensors import EMBEDDINGS, HEAD, Tensor
from psserve.zoo.checkpoints.tokenizer import SWITCHES, Tokenizer
from psserve.zoo.disk.manifest import FileRecord, hash_bytes

SHOWN = 5
WRAPPER = re.compile(r"(?<=^tensor )module\.|_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.")
"""What a tensor's name has that was saved inside DDP, torch.compile, FSDP or activation checkpointing."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the base has it."""

    field: str
    base: object
    module: object

    @property
    def is_dtype(self) -> bool:
        """Whether it is only the element type of a weight."""
        sides = [str(side).partition("[")[::2] for side in (self.base, self.module)]
        return self.field.startswith("tensor ") and sides[0][1] == sides[1][1] != ""

    def __str__(self) -> str:
        return f"{self.field}: base {shorten(self.base)}, module {shorten(self.module)}"


def kv_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The configuration that decides what a KV cache is."""
    fields = {field: checkpoint.config.get(field) for field in kv_fields(TABLE[checkpoint.architecture])}
    return {"architecture": checkpoint.architecture, "head_dim": checkpoint.head_dim} | fields


def fingerprint(checkpoint: Checkpoint, files: tuple[FileRecord, ...]) -> str:
    """BLAKE3, in hex, of all that decides the KV cache of a text: configuration, quantisation, tokenizer and weights.

    It follows the content: moving the directory changes nothing, splitting the weights into other files does.
    """
    deciding = {file.name: file.blake3 for file in files if file.name.endswith((".safetensors", "tokenizer.json"))}
    content: dict[str, Any] = {"config": kv_config(checkpoint), "files": deciding}
    if checkpoint.quantisation:
        content["quantization_config"] = checkpoint.quantisation.config
    document = json.dumps(content, sort_keys=True)
    return hash_bytes(document.encode())


def check_compatible(base_name: str, base: Checkpoint, module: Checkpoint) -> None:
    """Raise IncompatibleCheckpoint, naming each field with both values, unless `module` fits over the base's KV.

    Base and module may be quantised in different ways: then their tensors are not the same, and the module's must be
    those that its own configuration asks for.
    """
    found = list(differences(base, module))
    if not found:
        if base.quantisation or module.quantisation:
            check_tensors(module)
        return
    shown = "; ".join(str(difference) for difference in found[:SHOWN])
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    raise IncompatibleCheckpoint(
        f"{module.path}: cannot serve over the KV cache of base {base_name!r}: {shown}{more}: {advice(found, base)}"
    )


def advice(found: list[Difference], base: Checkpoint) -> str:
    """What to do about the differences."""
    if wrapper := next((match[0] for difference in found if (match := WRAPPER.search(difference.field))), None):
        return f"{wrapper} is of the model's wrapper: unwrap it (accelerator.unwrap_model), save it, and add that"
    if all(difference.is_dtype for difference in found):
        return f"convert it (model.to(torch.{base.dtype}).save_pretrained(DIR)) and add that"
    if all(difference.field.startswith("tokenizer.") for difference in found):
        return "if it was trained with the base's tokenizer, save that one with it; else it needs a base of its own"
    return "give a fine-tune of this base, or make a zoo for the base that it was made of"


def differences(base: Checkpoint, module: Checkpoint) -> Iterator[Difference]:
    """All that makes `module` unfit, the most telling first."""
    yield from mapping_differences("", kv_config(base), kv_config(module))
    yield from tokenizer_differences(base.tokenizer, module.tokenizer)
    if base.quantisation or module.quantisation:
        yield from mapping_differences("KV cache scale ", kv_scales(base), kv_scales(module))
        return
    yield from head_differences(base, module)
    yield from mapping_differences("tensor ", layout(base), layout(module))


def tokenizer_differences(base: Tokenizer, module: Tokenizer) -> Iterator[Difference]:
    """What makes texts other tokens, or lets no token end them.

    Another end token is none: it is the module's own. Nor is a token that was added to fill up batches: no text has it.
    Where a text begins with no token, and no template asks for one, it does not matter which it would be.
    """
    padding = (module.specials or {}).get("pad_token")
    yield from mapping_differences("tokenizer.", base.parts, without_padding(base.parts, module.parts, padding))
    if base.specials is None or module.specials is None:
        return
    fields = list(SWITCHES)
    if base.specials["add_bos_token"] or "bos_token" in (base.chat_template or ""):
        fields.append("bos_token")
    if module.specials["eos_token"] and module.end_token is None and module.parts is not None:
        fields.append("eos_token")
    for field in fields:
        if base.specials[field] != module.specials[field]:
            yield Difference(f"tokenizer.{field}", base.specials[field], module.specials[field])


def without_padding(
    base: dict[str, Any] | None, module: dict[str, Any] | None, padding: str | None
) -> dict[str, Any] | None:
    """The parts of a module's tokenizer without a padding token that the base's does not know."""
    if base is None or module is None or padding in [token["content"] for token in base["added_tokens"]]:
        return module
    return module | {"added_tokens": [token for token in module["added_tokens"] if token["content"] != padding]}


def head_differences(base: Checkpoint, module: Checkpoint) -> Iterator[Difference]:
    """What is wrong with an output layer that is not tied to the embeddings: the module's own, or one that is not."""
    wanted = describe_tensor(base.tensors[HEAD if HEAD in base.tensors else EMBEDDINGS])
    found = describe_tensor(module.tensors[HEAD]) if HEAD in module.tensors else None
    if not module.tied and found != wanted:
        yield Difference(f"tensor {HEAD}", wanted, found)


def warnings(base: Checkpoint, module: Checkpoint) -> Iterator[str]:
    """What is worth a word, but does not make `module` unfit."""
    if module.tokenizer.parts is None or module.tokenizer.specials is None:
        yield "the checkpoint has no complete tokenizer to compare: it is taken to use the base's"
    if module.tokenizer.chat_template not in (None, base.tokenizer.chat_template):
        yield "the checkpoint's chat template differs from the base's, which is the one that is served"


def mapping_differences(
    prefix: str, base: dict[str, Any] | None, module: dict[str, Any] | None
) -> Iterator[Difference]:
    """The keys of which the values differ; nothing if either side has no such mapping at all."""
    if base is None or module is None:
        return
    for key in [*base, *(key for key in module if key not in base)]:
        if base.get(key) != module.get(key):
            yield Difference(prefix + key, base.get(key), module.get(key))


def layout(checkpoint: Checkpoint) -> dict[str, str]:
    """Element type and shape of each tensor but those that a checkpoint may have or not.

    These are the output layer, which may be the embeddings, and rotary frequencies, which the configuration decides.
    """
    return {
        name: describe_tensor(tensor)
        for name, tensor in checkpoint.tensors.items()
        if name != HEAD and not name.endswith("rotary_emb.inv_freq")
    }


def describe_tensor(tensor: Tensor) -> str:
    """Element type and shape."""
    return f"{tensor.dtype}{list(tensor.shape)}"


def shorten(value: object) -> str:
    """A value for a message: short ones as they are, long ones (vocabularies) by hash."""
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if len(text) <= 60:
        return text
    return f"(hash {hash_bytes(text.encode())[:8]})"
