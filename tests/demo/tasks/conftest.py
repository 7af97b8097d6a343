"""The demo tokenizer, trained on a small piece of the corpus."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from psserve import torchvision_ops
from psserve.demo.tasks.corpus import corpus
from psserve.demo.tasks.tokenizer import write_demo_tokenizer


@pytest.fixture(scope="session")
def tokenizer_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    write_demo_tokenizer(directory, islice(corpus(0), 1000), 1024)
    return directory


@pytest.fixture(scope="session")
def tokenizer(tokenizer_files: Path) -> Any:
    torchvision_ops.declare_missing()
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_files)
