"""Implementations of the operations, one package a backend family.

Each backend exposes functions with the signatures of ``charlm_fast.ops`` and two questions:
``unavailable()`` (why it cannot run here, or None) and ``refuses(...)`` (why it cannot serve a
device, a dtype and an operation, or None). A backend imports nothing of the package but this layer.
"""
