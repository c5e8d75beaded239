"""What every training shares: the loop, its events, schedules, seeds, several devices. Knows no task and no search."""
