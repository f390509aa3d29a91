"""Everything that a command shows: tables, charts, progress, within 80 columns."""
