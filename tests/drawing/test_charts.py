"""Charts: values lie where their axes say, gaps stay gaps, and odd values do not stop a chart."""

import numpy as np
import pytest

from rankseg_d2.drawing import bar_chart, dot_chart, heat_map, plot_curves
from rankseg_d2.drawing.axes import Scale, limits, line_color, round_ticks, tick_text, widened
from rankseg_d2.drawing.colors import IGNORED, LINES, PAPER, mixed

NAN = float("nan")


def like(picture, color, tolerance=30):
    return np.abs(picture.astype(int) - np.asarray(color, int)).max(-1) <= tolerance


def test_ticks_are_round_numbers_within_the_limits():
    random = np.random.default_rng(0)
    for _ in range(300):
        low = random.normal() * 10.0 ** random.integers(-6, 7)
        high = low + random.random() * 10.0 ** random.integers(-3, 7)
        ticks = round_ticks(low, high, 6)
        assert 2 <= len(ticks) <= 7
        steps = np.diff(ticks)
        assert np.allclose(steps, steps[0])
        mantissa = steps[0] / 10.0 ** np.floor(np.log10(steps[0]) + 1e-9)
        assert np.isclose([1, 2, 5, 10], mantissa, atol=1e-4).any()
        margin = 1e-6 * (high - low)
        assert low - margin <= ticks[0]
        assert ticks[-1] <= high + margin


def test_texts_tell_ticks_apart():
    for low, high in ((0, 1), (0, 90000), (0.001, 0.0017), (-3, 3), (2e6, 9e6), (1e-9, 5e-9)):
        ticks = round_ticks(low, high, 6)
        texts = [tick_text(tick, ticks) for tick in ticks]
        assert len(set(texts)) == len(texts)
        assert max(map(len, texts)) <= 7
    assert tick_text(20000, [0, 20000, 40000]) == "20k"
    assert tick_text(0.25, [0.2, 0.25, 0.3]) == "0.25"
    assert tick_text(-0.0, [-1, 0, 1]) == "0"


def test_limits_hold_all_finite_values():
    assert limits([1, NAN, 5, np.inf]) == (1, 5)
    assert limits([], from_zero=True)[1] > 0
    for values in ([], [NAN], [0, 0], [5, 5], [-2], [1e300, 1e300]):
        low, high = limits(values)
        assert low < high
        assert all(low <= value <= high for value in values if np.isfinite(value))
    assert widened(0.13, 0.87, 100) == pytest.approx((0, 1))


def test_a_scale_is_linear():
    scale = Scale(10, 20, 100, 0)
    assert scale.at([10, 15, 20]).tolist() == [100, 50, 0]


def test_a_curve_passes_its_points_and_leaves_gaps():
    y = [0.0, 1.0, NAN, 0.5, NAN, 0.0, 0.0]
    picture = plot_curves({"only": y}, size=(400, 300), y_limits=(0, 1))
    curve = like(picture, LINES[0])
    rows, columns = np.nonzero(curve)
    left, right = columns.min() + 1, columns.max() - 1
    top, bottom = rows.min() + 1, rows.max() - 1

    def at(x, value):
        column, row = left + (right - left) * x / 6, bottom - (bottom - top) * value
        return curve[round(row) - 3 : round(row) + 4, round(column) - 3 : round(column) + 4].any()

    assert all(at(x, value) for x, value in enumerate(y) if np.isfinite(value))
    assert at(0.5, 0.5)
    assert at(5.5, 0)
    assert not at(1.5, 0.75)
    assert not at(2.5, 0.75)
    assert not at(4.4, 0.2)


def test_curves_are_where_their_x_values_are():
    near = plot_curves({"a": ([0, 1, 10], [0, 1, 1])}, size=(400, 200))
    far = plot_curves({"a": ([0, 9, 10], [0, 1, 1])}, size=(400, 200))
    first = [like(picture, LINES[0])[:, :200].sum() for picture in (near, far)]
    assert first[0] > 1.2 * first[1] > 0


def test_several_curves_get_a_legend_in_their_colours():
    series = {"loss": [3, 2, 1], "other": [1, 2, 3]}
    picture = plot_curves(series, "title", "x", "y")
    assert picture.shape == (360, 640, 3)
    for number in range(2):
        swatch = like(picture[:, 540:], line_color(number), 0)
        assert swatch.sum() >= 64
    assert len({line_color(number) for number in range(24)}) == 24


@pytest.mark.parametrize(
    "series",
    [
        {}, {"a": []}, {"a": [NAN, NAN]}, {"a": [5, 5, 5]}, {"a": [np.inf, 1, -np.inf]},
        {"a": ([0, 1e12], [1e-9, 1e300])}, {"a": ([], []), "b": [1]}, {"a": np.arange(3)},
    ],
)  # fmt: skip
def test_odd_values_do_not_stop_a_chart(series):
    assert plot_curves(series).shape == (360, 640, 3)


def test_limits_of_x_are_the_ends_of_the_axis():
    """A curve over half of them takes half of the width that it takes without."""
    widths = []
    for ends in (None, (0, 20)):
        picture = plot_curves({"a": ([0, 10], [1, 1])}, y_limits=(0, 2), x_limits=ends)
        columns = np.nonzero(like(picture, LINES[0]))[1]
        widths.append(columns.max() - columns.min())
    assert widths[1] == pytest.approx(widths[0] / 2, abs=4)


@pytest.mark.parametrize("values", [([1, 2], [1, 2, 3]), "text", 5, [[1, 2], [3]]])
def test_a_wrong_curve_is_named(values):
    with pytest.raises(ValueError, match="the curve 'mIoU' must be"):
        plot_curves({"mIoU": values})


def test_wrong_limits_and_sizes_are_named():
    with pytest.raises(ValueError, match="y_limits must be"):
        plot_curves({}, y_limits=(1, 1))
    with pytest.raises(ValueError, match="x_limits must be"):
        plot_curves({}, x_limits=(2, 1))
    with pytest.raises(ValueError, match="size must be"):
        plot_curves({}, size=(0, 100))


def test_bars_are_as_long_as_their_values():
    values = {"a": 1.0, "b": 0.5, "c": NAN, "d": -0.25, "e": 0.0}
    for upright in (False, True):
        picture = bar_chart(values, upright=upright, size=(500, 400))
        blue = like(picture, LINES[0], 4)
        lengths = blue.sum(0) if upright else blue.sum(1)
        found = []
        for start in np.flatnonzero(np.diff(lengths, prepend=0) > 3):
            found.append(int(lengths[start + 1]))
        assert len(found) == 3
        assert found[1] / found[0] == pytest.approx(0.5, abs=0.02)
        assert found[2] / found[0] == pytest.approx(0.25, abs=0.02)


def test_bars_have_their_own_colours_and_those_left_out_are_counted():
    colors = [(255, 0, 0), (0, 160, 0)]
    picture = bar_chart({"a": 1, "b": 2}, colors=colors)
    assert all(like(picture, color, 2).any() for color in colors)
    many = bar_chart({f"bar {i}": i for i in range(500)}, size=(400, 200))
    assert many.shape == (200, 400, 3)
    with pytest.raises(ValueError, match="2 bars have 1 colors"):
        bar_chart({"a": 1, "b": 2}, colors=colors[:1])


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("values", [{}, {"a": NAN}, {"a": 0}, {"a": -3}, {"a": np.inf, "b": 1}])
def test_odd_bars(values, upright):
    assert bar_chart(values, "title", "label", upright=upright).ndim == 3


def test_dots_lie_on_their_scale_and_the_bar_spans_the_standard_error():
    picture = dot_chart({"a": [0.0, 1.0], "b": [0.5]})
    dots = np.flatnonzero(like(picture, LINES[0], 4)[10:30].sum(0) >= 3)
    left, right = dots[0], dots[-1]  # of 0 and 1
    bar = np.flatnonzero(like(picture, mixed(LINES[0], PAPER, 0.5), 4)[10:30].sum(0) >= 8)
    middle, length = (bar[0] + bar[-1]) / 2, bar[-1] - bar[0]
    assert middle == pytest.approx((left + right) / 2, abs=2)
    assert length == pytest.approx(right - left, rel=0.05)  # 2 * 0.707 / sqrt(2) of the distance
    single = np.flatnonzero(like(picture, LINES[0], 4)[30:50].sum(0) >= 3)
    assert single.mean() == pytest.approx(middle, abs=2)


@pytest.mark.parametrize("values", [{}, {"a": [NAN]}, {"a": [3, 3]}, {"a": [], "b": [1]}])
def test_odd_dots(values):
    assert dot_chart(values, "title", "label").ndim == 3


def test_a_heat_map_is_darker_where_the_values_are_larger():
    matrix = np.array([[0, 1, 3], [NAN, 9, 0], [0, 0, 0]])
    picture = heat_map(matrix, ["a", "b", "c"], size=(400, 380))
    framed = np.flatnonzero(like(picture, IGNORED, 0).any(0))
    rows = np.flatnonzero(like(picture, IGNORED, 0).any(1))
    side, left, top = len(rows), framed[0], rows[0] - len(rows)
    sampled = picture[top + side // 8 :: side, left + side // 8 :: side][:3, :3].astype(int).sum(-1)
    assert sampled[0, 0] == sampled[2, 2] == 3 * 255
    assert sampled[0, 0] > sampled[0, 1] > sampled[0, 2] > sampled[1, 1]


def test_a_single_value_is_seen_among_thousands_of_classes():
    matrix = np.zeros((2000, 2000))
    matrix[777, 1234] = 1
    names = [f"class {i}" for i in range(2000)]
    picture = heat_map(matrix, names, size=(700, 700))
    assert (picture[:, :600] == (8, 32, 84)).all(-1).any()


@pytest.mark.parametrize(
    "matrix", [np.zeros((0, 0)), np.full((2, 2), NAN), -np.eye(2), np.eye(2)[:1]]
)
@pytest.mark.parametrize("size", [None, (300, 20), (1, 1)])
def test_odd_heat_maps(matrix, size):
    assert heat_map(matrix, ["a", "b"], "title", size=size).size


def test_a_matrix_without_names_is_refused():
    with pytest.raises(ValueError, match=r"2 names .* got \(3, 3\)"):
        heat_map(np.eye(3), ["a", "b"])


@pytest.mark.parametrize("size", [(1, 1), (30, 20), (100, 50), (300, 20)])
def test_charts_of_any_size(size):
    for picture in (
        plot_curves({"a": [1, 2], "b": [2, NAN]}, "title", "x", "y", size),
        bar_chart({"a": 1}, "title", "x", size),
        dot_chart({"a": [1, 2]}, "title", "x", size),
        bar_chart({"a": 1}, "title", "x", size, upright=True),
    ):
        assert picture.shape == (size[1], size[0], 3)
