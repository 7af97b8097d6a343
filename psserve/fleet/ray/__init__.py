"""A fleet's servers on the machines of a Ray cluster: an agent on each starts them, a bridge process talks to Ray."""
