"""What a cache does in one event loop: flights, leases, the way to the store. Private."""
