"""Guidance during the procedure: what was delivered, what is left, what to do next; each update a numbered record that never changes."""
