"""Lesions: shapes, strategies and the search for the smallest set that leaves nothing inducible."""
