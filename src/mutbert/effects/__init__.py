"""Variant effects: variant calls in, what a model says of each alternate allele out."""

from __future__ import annotations

# Imported first, so that where torch is missing, what is said is the extra that brings it.
import mutbert.model  # noqa: F401
