"""How the tagger's word lists and weights are made; nothing here runs in a worker."""
