"""Concept coverage: what a prompt asks for by name, and how much of it is to be heard."""
