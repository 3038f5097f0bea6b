"""Why a hand-written update does not match: watch it, hold models against it, say what differs."""
