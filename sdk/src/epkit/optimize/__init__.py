"""Graph passes, one file each. A pass is a function ``(ir.Model) -> int`` that changes the model in place
and returns how many changes it made; ``levels.py`` says which run by default, and in what order."""
