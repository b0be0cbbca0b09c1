"""What `make run` is made of: preparation, supervision and display, free of any service's code."""
