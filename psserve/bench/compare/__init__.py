"""Systems side by side: in turns, under several loads, several times."""
