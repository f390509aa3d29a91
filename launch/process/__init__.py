"""A command as a process: exit codes, signals, the watchdog, the supervisor."""
