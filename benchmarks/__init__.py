"""Scripts that measure, and their results with hardware, versions and date."""
