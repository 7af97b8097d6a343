"""The packages that training needs and serving does not."""

from __future__ import annotations

import importlib.util
import logging

from psserve.errors import TrainingError

PACKAGES = ("accelerate", "peft", "matplotlib")


def check_packages() -> None:
    """Raise TrainingError if a package of the `train` extra is missing."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise TrainingError(f"training needs {', '.join(missing)}: pip install 'psserve[train]'")


def quiet_packages() -> None:
    """Leave stderr to psserve's own progress: no bars of Transformers, no notes on what else torchao could use."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from psserve.training import hf

    hf.logging.set_verbosity_error()
    hf.logging.disable_progress_bar()
