"""Facts from free text in English by rules: concepts with their context, numbers with their time, wall segments; each with its place."""
