"""Operations that PyTorch does not have: each one function, one reference, several backends."""
