"""Who compiles where: the pool of processes, and what runs in them."""
