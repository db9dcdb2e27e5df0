"""The seam: all that is known of a kernel library and of the compiler it is written for."""
