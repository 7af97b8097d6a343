"""OpenAI's Responses API (`/v1/responses`) without its memory, served by chat completions."""
