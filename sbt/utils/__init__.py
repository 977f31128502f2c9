"""What everything stands on: errors, files, paths, text, the machine."""
