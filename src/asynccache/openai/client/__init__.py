"""The OpenAI SDK's clients, cached: requests to keys, entries to results. Private."""
