"""Everything on one machine: which roles fit it, the embedded server, and the processes of `casemill up`."""
