"""The three places where the update runs; each gives the same bits."""
