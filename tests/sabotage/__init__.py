"""Small mistakes, put into nanogan one at a time, and the tests that notice each.

A test suite is only worth what it would catch. What would notice this mistake? ``python -m tests.sabotage`` tells.

    rules.py       the obvious mistakes, made by rule in every backward, update and game's step
    harmless.py    those of them that change nothing, each with the reason
    by_hand_*.py   mistakes that no rule makes, by function, old code and new code
    trees.py       finds functions and changes their syntax trees
    judges.py      which tests are asked
    run.py         puts a mistake in, and runs them until one fails
"""
