"""asyncio, threads and forks; knows no cache. Private."""
