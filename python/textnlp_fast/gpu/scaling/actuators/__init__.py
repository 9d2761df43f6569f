"""What carries a decision out, one file a kind of fleet. Nothing here imports a cloud's SDK before it is used."""
