"""Holds the shape of the house: arrows, sizes, words, start-up cost, and what may be in the repository."""
