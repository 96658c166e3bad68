"""Trained models of any kind behind one adapter: MutBERT, its peers, and a plain CNN beside them."""
