"""What a server tells Prometheus of itself. Counted where it happens, collected when it is asked for."""
