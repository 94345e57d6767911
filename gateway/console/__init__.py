"""Static pages of the gateway."""
