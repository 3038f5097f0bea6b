"""From what the user wrote to what a host is told, checked."""
