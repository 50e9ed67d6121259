"""Where encoded entries live. Each store is one module, loaded when a cache is made with it."""
