"""What several tests need: nets, runs, audits, a browser."""
