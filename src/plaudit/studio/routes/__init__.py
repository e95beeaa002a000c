"""Routes by tag: every module here has a `router`, and `create_app` includes it under /api/v1."""
