"""Training, and all that keeps a run: the loop, checkpoints, the run folder, evaluation, pictures
of the loss.

Read ``trainer`` (the loop), ``checkpoint``, ``run``, ``recipe``, then ``evaluate``.
"""
