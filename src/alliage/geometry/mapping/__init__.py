"""Pictures of surveys: maps, trees, heat maps, profiles by depth, spectra, who contains whom."""
