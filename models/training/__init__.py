"""What every training shares: the loop, its events, schedules, seeds, several devices, precision, batches ahead.

Knows neither tasks nor searches.
"""
