"""From signals to features: filters, beats, delineation, exit sites and pace maps of ECGs; electrograms and isochrones of maps."""
