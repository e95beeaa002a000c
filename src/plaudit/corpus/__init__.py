"""Corpora: audio, captions and rewards, and their encoding to shards."""
