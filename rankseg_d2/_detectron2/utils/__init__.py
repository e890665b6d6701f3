"""Small things that the other packages share: files, logs, processes, metrics."""
