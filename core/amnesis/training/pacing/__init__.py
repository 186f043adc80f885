"""How far and how fast a run goes: its goal, its learning rate, and its pace.

A range test (:mod:`.range_test`) finds a rate before a run, by the rule of :mod:`.choice`;
:mod:`.pace` says in its first steps where it is too slow, and :mod:`.goal` whether it got there.
"""
