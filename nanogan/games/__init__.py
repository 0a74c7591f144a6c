"""Games: what is trained. Each file holds networks that play against each other, their optimisers, and one step."""
