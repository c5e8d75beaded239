"""What every training shares: the loop, its events, schedules, seeds, several devices.

Knows neither tasks nor searches.
"""
