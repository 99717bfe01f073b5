"""The learning rate as a function of the step."""

WARM_UP_SHARE = 0.05
WARM_UP_STEPS = 1000
DECAY_SHARE = 0.2


def learning_rate(step: int, n_steps: int, peak: float) -> float:
    """Rise to the peak over the first 5 % of the steps (at most 1,000), hold it, fall to zero over the last 20 %.

    Args:
        step: number of steps before this one.
        n_steps: steps of the whole training.
        peak: the highest rate.
    """
    warm_up = max(1.0, min(WARM_UP_SHARE * n_steps, WARM_UP_STEPS))
    decay = max(1.0, DECAY_SHARE * n_steps)
    return peak * min(1.0, (step + 1) / warm_up, (n_steps - step) / decay)
