"""Labelled sequences: from files to arrays, and how they are split."""
