"""What a run is: a YAML recipe in, a checked and wholly resolved `Recipe` out."""
