"""What a function of the user's does, told so that another process can compare: its text, and all that it reads."""
