"""The shared contract: how a job lives, and every type and key that two roles must agree on."""
