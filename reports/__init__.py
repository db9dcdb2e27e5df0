"""What the processes of a job have reported, read and put together; and pages for a browser."""
