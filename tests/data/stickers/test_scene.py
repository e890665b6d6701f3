"""Scenes of `stickers`: they follow from a seed; what is in front hides what is behind."""

from dataclasses import replace

import numpy as np
import pytest

from rankseg_d2.data.stickers import scene as scenes
from rankseg_d2.data.stickers.grounds import APPEARANCES, noise, paint_ground, paint_photo
from rankseg_d2.data.stickers.scene import Sticker, draw, make_scene
from rankseg_d2.data.stickers.vocabulary import GROUNDS, make_vocabulary

SIZE = (96, 120)
VOCABULARY = make_vocabulary(40)
SQUARE = [np.full((side, side, 4), (200, 100, 50, 1), np.float32) for side in (96, 48, 24)]
SQUARES = [SQUARE] * 30


def sticker(center, radius, angle=0.0, category=0, velocity=(0, 0)):
    ones = np.ones(3, np.float32)
    return Sticker(category, np.array(center), np.array(velocity), radius, angle, 0.0, ones)


def scene_of(*things):
    scene = make_scene(VOCABULARY, (1, 2), SIZE[1] / SIZE[0])
    return replace(scene, things=things, light=np.array([1, 0, 0]), camera=np.zeros(2))


def numbers_of(*things, time=0):
    """Of each pixel: -1 for grounds, else the number of the thing."""
    scene = scene_of(*things)
    numbers = draw(scene, SQUARES, [], SIZE, time)[1]
    return np.maximum(numbers - len(scene.grounds), -1)


def expected(thing, time=0):
    """Pixels whose centre lies in the turned square, by its two axes; and those near its edge."""
    y, x = (np.mgrid[: SIZE[0], : SIZE[1]] + 0.5) / SIZE[0]
    cx, cy = thing.center + thing.velocity * time
    across = (x - cx) * np.cos(thing.angle) + (y - cy) * np.sin(thing.angle)
    along = (y - cy) * np.cos(thing.angle) - (x - cx) * np.sin(thing.angle)
    beyond = np.maximum(abs(across), abs(along)) - thing.radius
    return beyond <= 0, abs(beyond) < 0.9 / SIZE[0]


@pytest.mark.parametrize("radius", [0.08, 0.2, 0.45])
@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0])
@pytest.mark.parametrize("center", [(0.6, 0.5), (0.02, 0.95)])
def test_a_sticker_covers_its_turned_and_scaled_square(center, radius, angle):
    thing = sticker(center, radius, angle, velocity=(0.01, -0.02))
    for time in (0, 3):
        inside, edge = expected(thing, time)
        assert np.array_equal((numbers_of(thing, time=time) == 0) | edge, inside | edge)


def test_a_sticker_outside_the_picture_is_not_drawn():
    for center in [(-1, 0.5), (3, 0.5), (0.5, -1), (0.5, 2)]:
        assert (numbers_of(sticker(center, 0.2)) == -1).all()


def test_the_sticker_in_front_hides_the_one_behind():
    back, front = sticker((0.5, 0.5), 0.3), sticker((0.7, 0.5), 0.2)
    both = numbers_of(back, front)
    alone = numbers_of(back) == 0, numbers_of(front) == 0
    assert np.array_equal(both == 1, alone[1])
    assert np.array_equal(both == 0, alone[0] & ~alone[1])


def test_colours_are_tinted_and_transparent_parts_show_what_is_behind(monkeypatch):
    monkeypatch.setattr(scenes, "_PIXEL_NOISE", 0)
    half = [level * np.float32(0.4) for level in SQUARE]
    thing = replace(sticker((0.6, 0.5), 0.3), tint=np.array([1, 0.5, 1], np.float32))
    scene = scene_of(thing)
    solid, numbers = draw(scene, SQUARES, [], SIZE)
    assert solid[48, 58].tolist() == [200, 50, 50] and numbers[48, 58] == len(scene.grounds)
    bare = draw(scene_of(), SQUARES, [], SIZE)[0]
    mixed, numbers = draw(scene, [half] * 30, [], SIZE)
    assert (numbers < len(scene.grounds)).all()  # less than half opaque: the ground is labelled
    assert mixed[48, 58] == pytest.approx(0.6 * bare[48, 58] + [80, 20, 20], abs=1.5)


def test_a_picture_follows_from_seed_and_time_and_moves_little_in_a_frame():
    scene = make_scene(VOCABULARY, (40, 0, 7), 1.25)
    first = draw(scene, SQUARES, [], SIZE, time=2)
    again = draw(make_scene(VOCABULARY, (40, 0, 7), 1.25), SQUARES, [], SIZE, time=2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], draw(scene, SQUARES, [], SIZE, time=12)[1])
    assert (draw(scene, SQUARES, [], SIZE, time=3)[1] == first[1]).mean() > 0.85


def test_images_have_few_categories_with_a_long_tail():
    vocabulary = make_vocabulary(100)
    present = np.zeros((500, 100), bool)
    for i in range(500):
        scene = make_scene(vocabulary, (100, 0, i), 1.25)
        present[i, [part.category for part in (*scene.grounds, *scene.things)]] = True
    assert 4 < present.sum(1).mean() < 8
    often = present[:, :90].mean(0)
    assert often.max() > 8 * np.quantile(often, 0.1) > 0
    together = present[:, :90].T.astype(float) @ present[:, :90] / 500
    lift = together / np.maximum(often[:, None] * often, 1e-9)
    assert (lift[np.triu_indices(90, 1)] == 0).mean() > 0.3


def test_things_hide_each_other():
    shares = []
    for i in range(10):
        scene = make_scene(VOCABULARY, (40, 0, i), 1.25)
        single = [replace(scene, things=(thing,)) for thing in scene.things]
        alone = [draw(one, SQUARES, [], SIZE)[1] for one in single]
        full = sum((numbers >= len(scene.grounds)).sum() for numbers in alone)
        seen = (draw(scene, SQUARES, [], SIZE)[1] >= len(scene.grounds)).sum()
        shares.append(1 - seen / full)
    assert 0.1 < np.mean(shares) < 0.5


@pytest.mark.parametrize("name", GROUNDS)
def test_a_ground_is_a_mixture_of_its_tones_that_moves_with_the_camera(name):
    y, x = (np.mgrid[:64, :64] / 64).astype(np.float32)
    weight = APPEARANCES[name][2](x, y)
    assert weight.min() >= 0 and weight.max() <= 1 and weight.std() > 0.03
    tones = np.float32([[0, 0, 0], [255, 255, 255]])
    picture = paint_ground(name, tones, x, y)
    assert picture.shape == (64, 64, 3) and picture.dtype == np.float32
    moved = paint_ground(name, tones, x + np.float32(8 / 64), y)
    assert abs(moved[:, :-8] - picture[:, 8:]).mean() < 4


def test_noise_is_smooth_and_has_no_border():
    x = np.linspace(-300, 300, 60_000, dtype=np.float32).reshape(300, 200)
    values = noise(x, np.full_like(x, -3.3))
    assert abs(np.diff(values.ravel())).max() < 0.1
    assert 0.1 < values.std() < 0.4


def test_a_photo_is_scaled_around_its_middle():
    photo = np.zeros((40, 80, 3), np.uint8)
    photo[:, 40:] = 200
    y, x = np.mgrid[-0.9:0.9:7j, -0.9:0.9:8j]
    painted = paint_photo(photo, x, y)
    assert (painted[:, :4] == 0).all() and (painted[:, 4:] == 200).all()
