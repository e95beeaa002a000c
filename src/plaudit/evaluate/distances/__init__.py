"""Distances between sets of embeddings, and what a set is worth by itself.

Every function takes the generated clips first and the reference second, as arrays [N, E] and [M, E], one row per clip,
and works in float64. What cannot be measured is an EvaluationError of one line.
"""
