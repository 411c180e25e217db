"""Characters in: files, downloads, vocabularies, and texts as ids."""
