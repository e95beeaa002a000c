"""The whole chain as steps in a run folder, from corpus to report."""
