"""Language models: a checkpoint folder, or a server's address, becomes a stream of text. Importing it is free."""
