"""Pure: the envelope of an entry, values and their types. Private: import from `asynccache`."""
