"""What a run was worth, for a person: one HTML page and one terminal table, from outputs alone."""
