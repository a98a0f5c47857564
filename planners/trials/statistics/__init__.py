"""Statistics of paired trials, with the twin as the unit: proportions, differences, looks, sizes, sensitivity."""
