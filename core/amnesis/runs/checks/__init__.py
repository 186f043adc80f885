"""What ``preflight`` checks of a run's texts, and of a recipe that is wrong in more than one way.

Nothing here loads a weight: ``texts`` tokenizes every row as the run will, and ``draft`` makes of a
faulty document what can be made of it, so that all that is wrong is said at once.
"""
