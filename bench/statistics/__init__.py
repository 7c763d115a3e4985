"""Statistics: intervals and scores from predictions."""
