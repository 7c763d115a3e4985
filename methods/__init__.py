"""Pre-training methods, one file each; the registry discovers them by their decorators."""
