"""What an operator asks of a running server, or changes in it: `Control`, one facade for every way in."""
