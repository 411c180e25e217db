"""PyG: GraphSAGE whose neighbours are a sequence, with LSTMAggregation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch_geometric.nn import GraphSAGE
from torch_geometric.utils import sort_edge_index

from .program import Program


class GraphSage(Program):
    """Two layers that classify the nodes of a random graph."""

    def build(self, small):
        sizes = (5, 7, 2, 3) if small else (64, 64, 2, 7)
        return GraphSAGE(*sizes, aggr="lstm")

    def batch(self, small):
        sizes = (20, 60, 5, 3) if small else (2708, 10_556, 64, 7)  # but for the columns Cora's
        nodes, edges, columns, classes = sizes
        edge_index = sort_edge_index(torch.randint(nodes, (2, edges)), sort_by_row=False)
        return {
            "x": torch.randn(nodes, columns),
            "edge_index": edge_index,
            "classes": torch.randint(classes, (nodes,)),
        }

    def outputs(self, model, batch):
        return [model(batch["x"], batch["edge_index"])]

    def loss(self, model, batch):
        return F.cross_entropy(self.outputs(model, batch)[0], batch["classes"])
