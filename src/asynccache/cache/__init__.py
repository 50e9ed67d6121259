"""What users hold: caches, their options and life. Private: import from `asynccache`."""
