"""Frames of a movie around another one."""


def frames(context: int, sees_middle: bool = False) -> list[int]:
    """Return the offsets of the frames that a network is shown, from the one that it predicts.

    Args:
        context: number of frames before it, and after it; 0: it is shown alone.
        sees_middle: the network is shown the predicted frame, too.

    Returns:
        Offsets, in order of time; none with a context of 0.

    >>> frames(2)
    [-2, -1, 1, 2]
    >>> frames(1, sees_middle=True)
    [-1, 0, 1]
    """
    before = range(-context, 0)
    after = range(1, context + 1)
    if sees_middle and context:
        return [*before, 0, *after]
    return [*before, *after]


def input_frames(context: int, sees_middle: bool = False) -> int:
    """Count the frames that a network takes along its channels.

    Args:
        context, sees_middle: see `frames`.

    Returns:
        1 or more.

    >>> [input_frames(0), input_frames(2), input_frames(2, sees_middle=True)]
    [1, 4, 5]
    """
    return len(frames(context, sees_middle)) or 1


def names_of_frames(context: int, sees_middle: bool = False) -> list[str]:
    """Name the frames that a network takes, for the channels of an export.

    Args:
        context, sees_middle: see `frames`.

    Returns:
        A name for each, in order of time; none with a context of 0.

    >>> names_of_frames(2, sees_middle=True)
    ['before2', 'before1', 'frame', 'after1', 'after2']
    """
    names = []
    for offset in frames(context, sees_middle):
        side = "before" if offset < 0 else "after"
        names.append(f"{side}{abs(offset)}" if offset else "frame")
    return names


def described_frames(context: int, sees_middle: bool) -> str:
    """Describe the frames that a network takes along its channels, and what is beyond the ends.

    Args:
        context, sees_middle: see `frames`; a context of 1 or more.

    >>> described_frames(2, sees_middle=True).partition(";")[0]
    'the 2 frames before one, that frame, and the next 2, in their order'
    """
    if sees_middle:
        shown = f"the {context} frames before one, that frame, and the next {context}"
        ends = "its end frame is repeated"
    else:
        shown = f"the {context} frames before one and the {context} after it"
        ends = "frames of the other side take their places"
    return f"{shown}, in their order; beyond the ends of a movie {ends}"


def around(
    frame: int,
    k: int,
    count: int,
    repeat: bool = False,
) -> int:
    """Return the frame that is k away from another one.

    At an end of the movie it is the frame as far away on the other side, or, with `repeat`, the
    end frame.

    Args:
        frame: from 0.
        k: the offset.
        count: of all frames.
        repeat: repeat the end frame: for networks that are shown the predicted frame. Others must
            never see it, and near an end it can be the end frame itself.

    Returns:
        A number from 0 to count - 1.

    >>> [around(t, -1, 5) for t in range(5)], around(0, 1, 2), around(1, 2, 2)
    ([1, 0, 1, 2, 3], 1, 0)
    >>> [around(t, -2, 5, repeat=True) for t in range(5)]
    [0, 0, 0, 1, 2]
    """
    if repeat:
        return min(max(frame + k, 0), count - 1)
    for other in (frame + k, frame - k):
        if 0 <= other < count:
            return other
    last = count - 1
    return last if frame < last - frame else 0
