"""What answers look like: the kinds of tasks."""
