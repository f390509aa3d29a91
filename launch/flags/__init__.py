"""Every flag, by subject, and what makes settings of them."""
