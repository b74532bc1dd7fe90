"""`copl`: collaborative preference learning.

Learns what each user prefers from a few comparisons per user, and scores any response for any user.
"""

__version__ = "0.1.0"
