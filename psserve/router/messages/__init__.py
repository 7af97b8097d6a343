"""Anthropic's Messages API (`/v1/messages`), served by chat completions."""
