"""Operations on images: the candidates of the search spaces, batch norm, and what makes them fast on CPUs."""
