"""How much memory and time a run will take, and what to set where a device has too little.

``counting`` counts what code holds while it runs on tensors that have shapes and no values;
``rehearsal`` lets a run's own step go through there, and ``plan`` makes a forecast and advice of
it. ``measuring`` makes two real steps instead.
"""
