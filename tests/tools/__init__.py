"""Our modules in other people's tools: a file for each tool, a test for each way.

``docs/tools.md`` is made of these names: see page.py.
"""
