"""Makes one checkpoint directory in a process of its own: `python -m psserve.fleet.run.materialise ZOO MODULE DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

from psserve.errors import PsserveError
from psserve.fleet.run.checkpoints import make_checkpoint
from psserve.zoo import Zoo


def main() -> int:
    zoo_dir, name, destination = sys.argv[1:]
    try:
        zoo = Zoo.open(Path(zoo_dir))
        make_checkpoint(zoo, zoo.module(name), Path(destination))
    except (PsserveError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
