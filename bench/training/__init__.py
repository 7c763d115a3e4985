"""The pre-training loop, optimizers, schedules and momentum encoders."""
