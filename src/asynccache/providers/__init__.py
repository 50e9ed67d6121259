"""What is known of each provider's requests and answers, whichever client sends them. Private."""
