"""Trainings from a file, of any model by any method: `python -m experiments.finetune FILE`.

The files below stand on each other in this order, and each is one question:

- ``config``: what a training is, as a TOML file. ``budgets``: how large a method is for a budget.
- ``data``, ``rows``, ``function_bodies``: what is learnt. ``tasks``: the same in tokens, with its
  model. ``scoring``: how well it is done.
- ``methods``: what of the model is trained. ``watching``: how its update grows.
- ``grades``, ``sandbox``, ``sandboxed``: answers that are generated, and programs run apart.
- ``checkpoints``, ``trainer``, ``training``: a Trainer that goes on after an interruption to equal
  numbers.
- ``planning``: what a training will take. ``record``: what is kept of it. ``configs/``: the
  runs of the paper, and two for a laptop.
"""
