"""What can go wrong for whoever trains; `train.py` and `evaluate.py` show it as one line."""


class TrainingError(Exception):
    """Training or evaluation can't go on; the message says why and what to do."""
