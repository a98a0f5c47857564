"""Reentry once more in the monodomain equation: from the reduced model's phase, or paced again."""
