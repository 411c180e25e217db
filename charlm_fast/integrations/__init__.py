"""Other people's libraries, one module each: what they do around an LSTM, done with ours.

A module imports its library; install that first.
"""
