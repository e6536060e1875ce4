"""What every room stands on: errors, checks, files, cells, estimates, threads, progress."""
