"""Scripts that measure. Their results state hardware, versions and date."""
