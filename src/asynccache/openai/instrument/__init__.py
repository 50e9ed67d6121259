"""Every OpenAI client of the process at once. Private."""
