"""What a model is made of: files, contents named by digest, windows, and the documents that say so."""
