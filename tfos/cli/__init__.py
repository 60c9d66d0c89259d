"""The command line: parse, call, turn errors into exit codes."""
