"""How far apart task vectors are, what they share, and maps of both."""
