"""What a person sees: tables, charts, the progress; each within 80 columns."""
