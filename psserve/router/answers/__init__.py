"""From a checked request to its answer: whole or streamed."""
