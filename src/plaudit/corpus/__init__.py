"""Where audio, captions and rewards come from."""
