"""Other APIs in front of chat completions: OpenAI's Responses and Anthropic's Messages."""
