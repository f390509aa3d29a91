"""Random access to the records of files, and what is known of bad ones."""
