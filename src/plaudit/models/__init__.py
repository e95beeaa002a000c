"""Published models: what is released where, fetching it, and turning it into model folders."""
