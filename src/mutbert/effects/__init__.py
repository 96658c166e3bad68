"""Variant effects: variant calls in, what a model says of each alternate allele out."""
