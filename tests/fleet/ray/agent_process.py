"""An agent in a process of its own, as Ray has it: calls on its standard input, what they give on its output."""

import json
import sys

from psserve.fleet.ray.agent import Agent


def main() -> None:
    agent = Agent(sys.argv[1], float(sys.argv[2]))
    for line in sys.stdin:
        method, arguments, named = json.loads(line)
        print(json.dumps(getattr(agent, method)(*arguments, **named)), flush=True)


if __name__ == "__main__":
    main()
