"""Block motion: fields, search, compensation and the coding of vectors."""
