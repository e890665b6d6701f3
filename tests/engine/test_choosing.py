"""What is chosen for own data: bounds, monotony, and odd data and machines."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankseg_d2.config import get_config
from rankseg_d2.config_ranges import RANGES
from rankseg_d2.data.checks.fingerprint import Fingerprint
from rankseg_d2.engine.choosing import BEST, Machine, choose

STREET = Fingerprint("street", "semantic", 80, 20, 6, 96, 128, 5, 5, 80, 0)
CPU, GPU = Machine(cpus=2), Machine(1, 16.0, 8)
KAPPA, BATCH, ITERATIONS = "MODEL.RANKSEG.TOPK", "SOLVER.IMS_PER_BATCH", "SOLVER.MAX_ITER"


@st.composite
def fingerprints(draw):
    whole = st.integers
    classes = draw(whole(1, 2000))
    categories = draw(whole(1, classes))
    return STREET._replace(
        task=draw(st.sampled_from(sorted(BEST))),
        images=draw(whole(1, 300_000)),
        val_images=draw(whole(0, 5_000)),
        classes=classes,
        height=draw(whole(1, 20_000)),
        width=draw(whole(1, 20_000)),
        categories=categories,
        objects=draw(whole(categories, 5_000)),
    )


machines = st.builds(
    Machine,
    processes=st.integers(1, 64),
    gpu_memory=st.just(0.0) | st.floats(0.5, 200.0),
    cpus=st.integers(1, 256),
)


def keys_of(data, machine, **more):
    return choose(data, machine, **more).keys


@settings(max_examples=300, deadline=None)
@given(fingerprints(), machines)
def test_every_choice_is_a_value_that_a_run_can_have(data, machine):
    choice = choose(data, machine)
    keys = choice.keys
    assert choice == choose(data, machine)
    assert all(RANGES[key].holds(value) for key, value in keys.items() if key in RANGES)
    assert data.categories <= keys[KAPPA] <= data.classes
    if schedule := keys["MODEL.RANKSEG.TOPK_SCHEDULE"]:
        (start, first), (end, last) = schedule
        assert start == 0 < end < keys[ITERATIONS] and first == data.classes > last == keys[KAPPA]
    else:
        assert keys[KAPPA] == data.classes
    assert keys[BATCH] % machine.processes == 0
    assert keys[BATCH] < data.images + machine.processes
    size = keys["INPUT.MIN_SIZE_TEST"]
    assert size % 32 == 0 and 96 <= size <= 640
    assert size <= max(96, min(data.height, data.width) + 31)
    assert keys["INPUT.CROP.SIZE"] == [size, size]
    assert keys["SOLVER.WARMUP_ITERS"] < keys[ITERATIONS]
    assert 0 < keys["SOLVER.CHECKPOINT_PERIOD"] <= keys[ITERATIONS]
    assert (keys["TEST.EVAL_PERIOD"] > 0) is (keys["TEST.BEST.METRIC"] != "") is (
        data.val_images > 0
    )
    assert all(choice.why.values()) and "κ" in choice.why


@settings(max_examples=200, deadline=None)
@given(fingerprints(), machines, st.integers(1, 300_000))
def test_more_images_never_give_fewer_iterations(data, machine, more):
    longer = data._replace(images=data.images + more)
    assert keys_of(longer, machine)[ITERATIONS] >= keys_of(data, machine)[ITERATIONS]
    assert keys_of(longer, machine)[BATCH] >= keys_of(data, machine)[BATCH]


@settings(max_examples=200, deadline=None)
@given(fingerprints(), st.floats(2.5, 200.0))
def test_a_batch_fits_into_the_memory_of_the_gpu(data, memory):
    """Of one image at 512 x 512, the large model's training takes 2 GiB, the small one's 1."""
    choice = choose(data, Machine(1, memory, 8))
    gib = 1.0 if "small" in choice.config else 2.0
    used = choice.keys[BATCH] * gib * (choice.keys["INPUT.MIN_SIZE_TEST"] / 512) ** 2
    assert used <= memory - 2 or choice.keys[BATCH] == 1


@settings(max_examples=200, deadline=None)
@given(fingerprints(), st.floats(0.5, 200.0), st.floats(0.0, 100.0))
def test_more_memory_never_gives_smaller_images(data, memory, more):
    sizes = [keys_of(data, Machine(1, gib, 8))["INPUT.MIN_SIZE_TEST"]
             for gib in (memory, memory + more)]  # fmt: skip
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("change", "machine", "expected"),
    [
        ({"images": 1}, GPU, {BATCH: 1, ITERATIONS: 1500}),
        ({"images": 1}, Machine(8, 16.0, 8), {BATCH: 8}),  # each process needs one
        ({"classes": 1, "categories": 1, "objects": 1}, CPU, {KAPPA: 1}),
        ({"images": 60_000}, GPU, {BATCH: 16, ITERATIONS: 40_000}),
        ({"images": 60_000}, CPU, {BATCH: 4, ITERATIONS: 500}),
        ({"images": 60_000}, Machine(cpus=64), {ITERATIONS: 4_000}),
        ({"height": 9_000, "width": 12_000}, CPU, {"INPUT.MIN_SIZE_TEST": 256}),
        ({"height": 9_000, "width": 12_000}, GPU, {"INPUT.MIN_SIZE_TEST": 512}),
        ({"height": 9_000, "width": 12_000}, Machine(1, 80.0, 8), {"INPUT.MIN_SIZE_TEST": 640}),
        ({"height": 20, "width": 30}, GPU, {"INPUT.MIN_SIZE_TEST": 96}),
        ({"val_images": 0}, GPU, {"TEST.EVAL_PERIOD": 0, "TEST.BEST.METRIC": ""}),
        ({"classes": 847, "categories": 30}, GPU, {KAPPA: 60}),
        ({"classes": 100, "categories": 60}, GPU, {KAPPA: 100}),
        ({"objects": 90}, GPU, {"MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 150}),
        ({"objects": 4_000}, CPU, {"MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 300}),
    ],
)
def test_odd_data(change, machine, expected):
    keys = keys_of(STREET._replace(**change), machine)
    assert {key: keys[key] for key in expected} == expected


def test_a_number_of_iterations_that_is_given_sets_what_depends_on_it():
    keys = keys_of(STREET, CPU, iterations=50)
    names = (ITERATIONS, "SOLVER.WARMUP_ITERS", "TEST.EVAL_PERIOD", "SOLVER.CHECKPOINT_PERIOD")
    assert [keys[name] for name in names] == [50, 5, 10, 10]
    assert keys_of(STREET, CPU, iterations=1)["TEST.EVAL_PERIOD"] == 1


@pytest.mark.parametrize("task, gib", [*itertools.product(BEST, (0.0, 4.0, 12.0, 80.0))])
def test_the_config_exists_and_takes_the_keys(task, gib):
    choice = choose(STREET._replace(task=task), Machine(1, gib, 8))
    cfg = get_config(choice.config, [word for pair in choice.keys.items() for word in pair])
    assert cfg.MODEL.RANKSEG.FLAG and cfg.MODEL.RANKSEG.KEEP_TRUE
    assert cfg.MODEL.TIMM.PRETRAINED == "package"
    assert cfg.SOLVER.AMP.ENABLED is (gib > 0)
    assert {"semantic": "SEMANTIC_ON", "panoptic": "PANOPTIC_ON", "instance": "INSTANCE_ON"}[
        task
    ] in {name for name, is_on in cfg.MODEL.MASK_FORMER.TEST.items() if is_on is True}


@pytest.mark.parametrize(
    ("change", "machine", "message"),
    [
        ({"task": "depth"}, CPU, "the task must be one of semantic, panoptic, instance; got 'dep"),
        ({"images": 0}, CPU, "images must be 1 or more; got 0"),
        ({"categories": 0}, CPU, "categories must be 1 or more; got 0"),
        ({"categories": 7}, CPU, "cannot have 7 categories of 6 classes"),
        ({}, Machine(processes=0), "processes must be 1 or more; got 0"),
    ],
)
def test_what_cannot_be_is_refused(change, machine, message):
    with pytest.raises(ValueError, match=message):
        choose(STREET._replace(**change), machine)


def test_a_kappa_of_the_user_is_where_the_schedule_ends():
    data = STREET._replace(classes=100, categories=10)
    keys = keys_of(data, CPU, iterations=1000, kappa=30)
    assert keys[KAPPA] == 30
    assert keys["MODEL.RANKSEG.TOPK_SCHEDULE"] == [[0, 100], [800, 30]]
    assert keys_of(data, CPU, kappa=100)["MODEL.RANKSEG.TOPK_SCHEDULE"] == []


def test_the_reasons_name_the_numbers():
    why = choose(STREET._replace(height=480, width=640), CPU).why
    size = "256 pixels, not the 480 of the shortest edge, because there is no GPU"
    assert why["image size"] == size
    assert why["κ"] == "6 of 6 categories: twice the 5 that an image has at most"
    why_few = choose(STREET._replace(classes=60), CPU).why["κ"]
    assert why_few == (
        "10 of 60 categories: twice the 5 that an image has at most; the training comes down to it "
        "from all"
    )
    assert "not more, because there is no GPU" in why["schedule"]
    assert "each 25 times" in why["schedule"]  # 500 x 4 / 80
    assert "no split val" in choose(STREET._replace(val_images=0), CPU).why["evaluation"]
