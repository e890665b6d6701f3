"""Operations that PyTorch does not have: each is one function with several backends."""
