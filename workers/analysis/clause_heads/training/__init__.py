"""How the clause heads are trained and measured; nothing here runs in a worker."""
