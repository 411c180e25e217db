"""A model as one HTML page that anyone can open."""

from .document import page
from .weights import PRECISIONS, Weights, page_model, quantise

__all__ = ["PRECISIONS", "Weights", "page", "page_model", "quantise"]
