"""Health and control over gRPC, on a side port of a server's process, and the client of it."""
