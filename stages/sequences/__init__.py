"""The task of sequences: forecasts of series and models of text."""
