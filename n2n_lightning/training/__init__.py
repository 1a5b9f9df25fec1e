"""Training: the run, its module, callbacks, checkpoints, loggers and schedules."""
