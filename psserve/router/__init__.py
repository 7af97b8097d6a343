"""The HTTP front: OpenAI's API, routing by task and prefix, and the dispatch of prefill/decode pairs."""
