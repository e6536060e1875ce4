"""Linear maps that are never formed: Kronecker operators, CoSA bases, transforms, Gram matrices."""
