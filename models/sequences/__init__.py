"""Networks for series and text: recurrent search spaces, supernets that grow, found networks and baselines."""
