"""The cache in other people's frameworks: one module for each, named after it."""
