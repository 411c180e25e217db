"""Tables of checks that passed, one JSON file a GPU, which come with the package: none yet.

A file is what ``charlm env --check`` keeps in the cache. A field that its key leaves out, such as
``driver``, fits any machine.
"""
