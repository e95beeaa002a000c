"""Systems on the same prompts: read, paired, tested, and laid side by side to be heard."""
