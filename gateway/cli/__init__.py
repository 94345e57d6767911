"""The command line: every verb of ``casemill``."""
