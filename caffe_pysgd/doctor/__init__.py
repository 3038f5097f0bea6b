"""Whether this machine can run it all: each check runs what it speaks of."""
