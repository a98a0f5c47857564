"""In-silico trials: populations, arms, executors, statistics, report."""
