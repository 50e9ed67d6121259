"""asynccache: the same request is paid for once, and answered alike ever after."""
