"""Side by side with peers and with the machine's own limits; each writes JSON and a table."""
