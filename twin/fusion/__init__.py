"""Fusion of clinical, signal and imaging data into one probability, with what is missing and what is doubtful said."""
