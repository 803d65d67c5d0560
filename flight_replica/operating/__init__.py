"""The operator's commands: `status`, `tables`, `queries`, `cancel`, `rebase`, `pause` and others."""
