"""`OpenAIWrapper`: AutoGen's list of models, awaited and cached. Private."""
