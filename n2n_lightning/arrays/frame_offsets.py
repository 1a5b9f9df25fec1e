"""Frames of a movie around another one."""


def frames(context: int) -> list[int]:
    """Return the offsets of the frames that a network is shown, from the one that it predicts.

    >>> frames(2)
    [-2, -1, 1, 2]
    """
    before = range(-context, 0)
    after = range(1, context + 1)
    return [*before, *after]


def around(
    frame: int,
    k: int,
    count: int,
) -> int:
    """Return the frame that is k away from another one; at the ends the one on the other side.

    Args:
        frame: from 0.
        k: the offset.
        count: of all frames.

    Returns:
        A number from 0 to count - 1.

    >>> [around(t, -1, 5) for t in range(5)], around(0, 1, 2), around(1, 2, 2)
    ([1, 0, 1, 2, 3], 1, 0)
    """
    for other in (frame + k, frame - k):
        if 0 <= other < count:
            return other
    last = count - 1
    return last if frame < last - frame else 0
