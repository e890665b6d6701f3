"""How the files of public data sets are made, once: jobs, worker processes, conversions."""
