"""Where a replica reads a table's log: over Flight, in the same process, or nowhere."""
