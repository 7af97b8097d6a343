"""The packages that training needs and serving does not."""

from __future__ import annotations

import importlib.util

from psserve.errors import TrainingError

PACKAGES = ("accelerate", "peft", "matplotlib")


def check_packages() -> None:
    """Raise TrainingError if a package of the `train` extra is missing."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise TrainingError(f"training needs {', '.join(missing)}: pip install 'psserve[train]'")


def quiet_packages() -> None:
    """Leave stderr to psserve's own progress: no bars and notes of Transformers."""
    from transformers.utils import logging  # no more of it: hf.py takes seconds, and not all who call this train

    logging.set_verbosity_error()
    logging.disable_progress_bar()
