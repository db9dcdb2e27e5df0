"""What each command of the command line says and decides."""
