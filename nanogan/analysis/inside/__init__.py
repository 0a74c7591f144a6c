"""Inside the networks: what D's filters see, D's features, what G forgets without some maps, spectra."""
