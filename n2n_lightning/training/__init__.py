"""Training: the module, callbacks, checkpoints, loggers, schedules, and the run that puts them together."""
