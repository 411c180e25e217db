"""What all backends agree on about a draw."""

from __future__ import annotations

# exp(x) counts as zero below this, x being the scaled logit less the largest one.
UNDERFLOW = -700.0

# Ids that tell why a row could not be drawn.
NOT_FINITE = -1  # NaN or +infinity among the logits
ALL_MINUS_INFINITY = -2
