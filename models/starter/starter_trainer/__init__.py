"""Makes the starter models from rendered shapes; `train.py` and `evaluate.py` call it.

Read `pictures.py` first: the recipe, stage by stage. What is learnt from is in
`atrium_diffusion.testing.shapes`, which the judge of the tests shares.
"""
