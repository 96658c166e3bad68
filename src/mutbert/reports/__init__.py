"""Figures and one self-contained HTML page; results come in as data."""
