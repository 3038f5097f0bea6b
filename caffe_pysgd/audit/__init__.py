"""The audit: what the update did to every parameter, recorded so that it can be proved later."""
