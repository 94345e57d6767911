"""The description of the API: made from the routes, the problems that they declare, and requests that were answered."""
