"""The load generator: sessions sent to OpenAI-compatible servers, in an open or a closed loop."""
