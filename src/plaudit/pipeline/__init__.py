"""A run: the steps of a recipe, from corpus to report."""
