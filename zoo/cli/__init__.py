"""The command line: training, and the commands that belong to no task."""
