"""`rankseg-d2 dataset`: prepare public data sets, check and describe any data set."""
