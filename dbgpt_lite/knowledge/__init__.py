"""Files -> cited passages: read, split, embed, index, search. Importing this package loads nothing heavy."""
