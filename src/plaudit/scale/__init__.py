"""The same work on many processes or machines: preparation, generation and scoring on Ray Data (extra `scale`)."""
