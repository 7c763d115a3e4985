"""Object detectors on an encoder: recipes, engines, training and what they find."""
