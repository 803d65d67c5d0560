"""A table's replica, by hand (`Replica`) or as a server (`ReplicaService`). Names are merutable's own."""
