"""Pure: canonical forms, keys and namespaces. Private: import from `asynccache`."""
