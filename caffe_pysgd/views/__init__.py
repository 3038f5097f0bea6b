"""An audit, shown: as a page, in the terminal, as tables for other tools."""
