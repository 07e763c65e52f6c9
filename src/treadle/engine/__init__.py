"""Verbs: what can be done to tasks, containers, outputs and deliveries."""
