"""The report of a run: a folder with one page that opens from disk, and the same numbers for programs."""
