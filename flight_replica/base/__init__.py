"""Where a replica's base comes from: Iceberg, the engine's own files, another server, or nowhere."""
