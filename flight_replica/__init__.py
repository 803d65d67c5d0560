"""A live read replica for merutable tables that speaks Arrow Flight SQL."""
