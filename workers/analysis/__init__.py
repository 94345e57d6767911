"""Document analysis: the playbook scan on GPU or CPU, and the risk that follows from what it finds."""
