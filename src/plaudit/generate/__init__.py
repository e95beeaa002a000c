"""Generation of clips from prompts."""
