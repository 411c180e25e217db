"""The language model: what it computes, writes, scores, saves. No training, no command line."""
