"""Windows of movies, generated from pictures: they move, flicker, and parts of them light up."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.arrays import axes

# Shares of the windows. Most movies of microscopes are still; there frames around help most.
STILL = 0.4
PANNING = 0.35
TURNING = 0.15  # rotating and zooming, on top of panning
# the others shake: each of their frames has a place of its own
CUT = 0.1  # frames before or after a cut show another window
OBJECTS = 0.2  # with discs that move over the ground
EVENTS = 0.6  # with cells that light up
FLICKERING = 0.15  # with a lamp that flickers and bleaches
MARGIN = 16  # pixels around a window that come into it as it moves
FASTEST = 3.0  # pixels a frame
MOST_TURN = 0.03  # radians a frame, and logarithm of the zoom
CELLS = 5  # of a window with events
DISCS = 3  # of a window with objects


def windows(pictures: Tensor, size: int, context: int, draws: torch.Generator) -> Tensor:
    """Make a window of frames of each picture.

    Args:
        pictures: grey, (B, 1, S, S), values in [0, 1]; S is `size` + 2 MARGIN.
        size: height and width of the frames.
        context: frames before and after the middle one, which shows the picture as it is.
        draws: random generator.

    Returns:
        (B, 2 context + 1, size, size), values in [0, 1], without noise.
    """
    count = len(pictures)
    times = torch.arange(-context, context + 1)
    turns, places = _motion(count, times, draws)
    movie = _sampled(pictures, turns, places, size)
    movie = _with_objects(movie, pictures, times, draws)
    movie = _with_cells(movie, places, times, draws)
    movie = _cut(movie, times, draws)
    movie = movie * _lamp(count, times, draws)
    brightest = movie.flatten(1).amax(1)
    white = axes.per_image(brightest.clamp(min=1), movie)
    return movie.clamp(min=0) / white


def _uniform(
    low: float,
    high: float,
    shape: tuple[int, ...],
    draws: torch.Generator,
) -> Tensor:
    u = torch.rand(shape, generator=draws)
    return low + (high - low) * u


def _logarithmic(
    low: float,
    high: float,
    shape: tuple[int, ...],
    draws: torch.Generator,
) -> Tensor:
    logarithm = _uniform(math.log(low), math.log(high), shape, draws)
    return logarithm.exp()


def _chosen(
    share: float,
    shape: tuple[int, ...],
    draws: torch.Generator,
) -> Tensor:
    u = torch.rand(shape, generator=draws)
    return u < share


def _over_pixels(values: Tensor) -> Tensor:
    """Append axes for height and width."""
    return values[..., None, None]


def _motion(
    count: int,
    times: Tensor,
    draws: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw where the frames of each window see the picture.

    Args:
        count: windows, B.
        times: of the frames, (F,); 0 is the middle.
        draws: random generator.

    Returns:
        Angle and logarithm of the zoom, (B, F, 2), and displacement in pixels along rows and
        columns, (B, F, 2).
    """
    one = (count, 1, 1)
    kind = _uniform(0, 1, one, draws)
    pans = kind >= STILL
    since_turning = STILL + PANNING
    since_shaking = since_turning + TURNING
    turning = (kind >= since_turning) & (kind < since_shaking)
    shaking = kind >= since_shaking
    whole = _chosen(0.5, one, draws)  # others are blurred by interpolation

    velocity = _velocities((count, 1), draws)
    velocity = torch.where(whole, velocity.round(), velocity)
    course = times[:, None]
    places = pans * velocity * course

    jumps = _uniform(-1.5, 1.5, (count, len(times), 2), draws)
    jumps = torch.where(whole, jumps.round(), jumps)
    jumps = jumps * (course != 0)
    places = torch.where(shaking, jumps, places)

    turn = _uniform(-MOST_TURN, MOST_TURN, (count, 1, 2), draws)
    return turning * turn * course, places


def _velocities(shape: tuple[int, ...], draws: torch.Generator) -> Tensor:
    """Draw velocities in pixels a frame, slow ones more often: rows and columns, (*shape, 2)."""
    angle = _uniform(0, 2 * math.pi, shape, draws)
    share = _uniform(0, 1, shape, draws)
    speed = FASTEST * share**1.5
    rows = speed * angle.sin()
    columns = speed * angle.cos()
    return torch.stack((rows, columns), -1)


def _sampled(
    pictures: Tensor,
    turns: Tensor,
    places: Tensor,
    size: int,
) -> Tensor:
    """Return the middle of pictures, each frame rotated, zoomed and displaced.

    Args:
        pictures: (B, 1, S, S).
        turns, places: see `_motion`.
        size: of the windows.

    Returns:
        (B, F, size, size), interpolated by cubic convolution.
    """
    count, frames, _ = places.shape
    side = pictures.shape[2]
    positions = torch.arange(size) - (size - 1) / 2
    angle, zoom = turns.unbind(-1)
    sine = _over_pixels(zoom.exp() * angle.sin())
    cosine = _over_pixels(zoom.exp() * angle.cos())
    down, right = places.unbind(-1)
    rows = positions[:, None]
    columns = positions
    y = cosine * rows - sine * columns
    x = sine * rows + cosine * columns
    y = y + _over_pixels(down)
    x = x + _over_pixels(right)
    grid = torch.stack((x, y), -1) * (2 / side)  # from -1 to 1, from edge to edge
    several = pictures.expand(count, frames, side, side)
    sampled = F.grid_sample(
        several.reshape(-1, 1, side, side),
        grid.flatten(0, 1),
        mode="bicubic",
        padding_mode="reflection",
        align_corners=False,
    )
    return sampled.view(count, frames, size, size).clamp(0, 1)


def _discs(
    paths: Tensor,
    radii: Tensor,
    blur: Tensor,
    size: int,
) -> Tensor:
    """Draw discs with soft edges.

    Args:
        paths: their middles, rows and columns in pixels, (B, N, F, 2).
        radii, blur: in pixels, (B, N).
        size: height and width.

    Returns:
        0 to 1, (B, N, F, size, size).
    """
    positions = torch.arange(size)
    y, x = paths.unbind(-1)
    down = positions[:, None] - _over_pixels(y)
    right = positions - _over_pixels(x)
    distance = torch.hypot(down, right)
    radius = _over_pixels(radii[..., None])
    width = _over_pixels(blur[..., None])
    return torch.sigmoid((radius - distance) / width)


def _with_objects(
    movie: Tensor,
    pictures: Tensor,
    times: Tensor,
    draws: torch.Generator,
) -> Tensor:
    """Let discs with the pixels of other pictures move over some of the windows.

    Args:
        movie: (B, F, H, W).
        pictures: (B, 1, S, S).
        times: of the frames, (F,).
        draws: random generator.

    Returns:
        A movie in that shape.
    """
    count, _, size, _ = movie.shape
    shape = (count, DISCS)
    chosen = _chosen(OBJECTS, (count, 1, 1, 1), draws)
    middles = _uniform(0, size, (*shape, 1, 2), draws)
    steps = _velocities(shape, draws)[:, :, None]
    radii = _logarithmic(2, size / 4, shape, draws)
    blur = _uniform(0.3, 0.9, shape, draws)
    course = times[:, None]
    masks = _discs(middles + steps * course, radii, blur, size)
    others = pictures.roll(1, 0)
    # what a disc shows moves with it; one velocity of content is enough
    seen = -steps[:, 0] * course
    content = _sampled(others, torch.zeros_like(seen), seen, size)
    cover = chosen * masks[:, 0]
    result = torch.lerp(movie, content, cover)
    for i in range(1, DISCS):
        grey = content.flatten(2).mean(2)
        plain = _over_pixels(grey * i / DISCS)
        result = torch.lerp(result, plain.expand_as(result), chosen * masks[:, i])
    return result


def _with_cells(
    movie: Tensor,
    places: Tensor,
    times: Tensor,
    draws: torch.Generator,
) -> Tensor:
    """Add cells to some of the windows, which light up, fade or go out.

    Args:
        movie: (B, F, H, W).
        places: where the frames see the picture, (B, F, 2).
        times: of the frames, (F,); 0 is the middle.
        draws: random generator.

    Returns:
        A movie in that shape.
    """
    count, _, size, _ = movie.shape
    shape = (count, CELLS)
    chosen = _chosen(EVENTS, (count, 1, 1, 1), draws)
    middles = _uniform(0, size, (*shape, 1, 2), draws)
    radii = _logarithmic(1.5, 12, shape, draws)
    blur = _uniform(0.4, 1.2, shape, draws)
    masks = _discs(middles - places[:, None], radii, blur, size)

    level = movie.flatten(1).mean(1)[:, None]
    resting = _uniform(-0.5, 0.6, shape, draws).clamp(min=0)  # half of them do not show
    still = masks * _over_pixels((level * resting)[..., None])
    ground = movie + still.sum(1)

    course = _courses(shape, times, draws)
    multiplies = _chosen(0.6, shape, draws)
    factors = _logarithmic(0.04, 1.5, shape, draws) * multiplies
    summands = _logarithmic(0.01, 0.6, shape, draws) * ~multiplies
    gain = masks * _over_pixels(factors[..., None] * course)
    light = masks * _over_pixels(summands[..., None] * course)
    gain_of_all = gain.sum(1).clamp(min=-0.9)
    active = ground * (1 + gain_of_all) + light.sum(1)
    return torch.where(chosen, active, movie)


def _courses(
    shape: tuple[int, ...],
    times: Tensor,
    draws: torch.Generator,
) -> Tensor:
    """Draw how cells light up: within a frame, for one frame, a few, or from then on.

    Args:
        shape: of the cells, (B, N).
        times: of the frames, (F,); 0 is the middle.
        draws: random generator.

    Returns:
        0 to 1, -0.5 to 0 where a cell goes out, (B, N, F).
    """
    last = int(times.max())
    first = torch.randint(-last - 2, last + 2, shape, generator=draws)
    kind = _uniform(0, 1, shape, draws)[..., None]
    in_middle = _chosen(0.5, shape, draws) & (kind[..., 0] < 0.33)
    first = first.masked_fill(in_middle, 0)
    fade = _logarithmic(0.8, 8, shape, draws)
    brighter = _chosen(0.85, shape, draws)
    sign = torch.where(brighter, 1.0, -0.5)

    age = times - first[..., None]
    one_frame = (age == 0).float()
    fading = (-age / fade[..., None]).exp()
    lasting = torch.ones_like(fading)
    course = torch.where(kind < 0.85, fading, lasting)
    course = torch.where(kind < 0.33, one_frame, course)
    course = course.masked_fill(age < 0, 0)
    return sign[..., None] * course


def _cut(
    movie: Tensor,
    times: Tensor,
    draws: torch.Generator,
) -> Tensor:
    """Let some of the windows show another one before or after a cut."""
    count = len(movie)
    cut = _chosen(CUT, (count, 1), draws)
    later = _chosen(0.5, (count, 1), draws)
    last = int(times.max())
    first = torch.randint(1, last + 1, (count, 1), generator=draws)
    after = times >= first
    before = times <= -first
    foreign = cut & torch.where(later, after, before)
    return torch.where(_over_pixels(foreign), movie.roll(1, 0), movie)


def _lamp(
    count: int,
    times: Tensor,
    draws: torch.Generator,
) -> Tensor:
    """Draw the brightness of each frame, (B, F, 1, 1); 1 in most of the windows."""
    flickers = _chosen(FLICKERING, (count, 1), draws)
    strength = _logarithmic(0.01, 0.2, (count, 1), draws)
    bleaching = _uniform(-0.03, 0.01, (count, 1), draws)
    noise = torch.randn((count, len(times)), generator=draws)
    brightness = 1 + strength * noise + bleaching * times
    steady = torch.ones_like(brightness)
    brightness = torch.where(flickers, brightness.clamp(min=0.3), steady)
    return _over_pixels(brightness)
