"""Files that are whole or absent, lists that survive a kill, and values read from them."""
