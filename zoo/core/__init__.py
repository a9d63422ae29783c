"""What every task stands on. Nothing here knows a task."""
