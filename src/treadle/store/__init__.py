"""The memory: tasks and all they need, behind one protocol."""
