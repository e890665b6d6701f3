import io
import os
import pickle
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from urllib.error import URLError

import numpy as np
import pytest
import torch
from iopath.common.file_io import PathHandler, PathManager

from rankseg_d2.checkpoints.reading import is_whole, locate, read_checkpoint, read_weights

ARRAYS = {
    "float": np.random.default_rng(0).normal(size=(4, 3, 2)).astype("f4"),
    "half": np.arange(5, dtype="f2"),
    "transposed": np.arange(24, dtype="f4").reshape(2, 3, 4).transpose(1, 0, 2),
    "fortran": np.asfortranarray(np.arange(6, dtype="i4").reshape(2, 3)),
    "big_endian": np.arange(4, dtype=">f8"),
    "strided": np.arange(10, dtype="u1")[::2],
    "counter": np.array(7, dtype="i8"),
    "flags": np.array([True, False]),
    "names": np.array(["wall", "sky"]),
    "empty": np.zeros((0, 3), "f4"),
}


def save(path, data, **options):
    """`data` in a file: bytes as they are, other things pickled."""
    path.write_bytes(data if isinstance(data, bytes) else pickle.dumps(data, **options))
    return path


def save_torch(path, data, **options):
    torch.save(data, path, **options)
    return path


class Attack:
    """Pickles to a call of `function`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("core", [b"numpy._core", b"numpy.core"])
@pytest.mark.parametrize("protocol", range(6))
def test_pickled_arrays_keep_values_types_and_shapes(tmp_path, protocol, core):
    data = {"model": dict(ARRAYS), "__author__": "us", "sizes": [np.float32(0.5), (1, None, "x")]}
    content = pickle.dumps(data, protocol=protocol)
    for own in (b"numpy._core", b"numpy.core"):
        if protocol < 4:  # the names end with a newline, so that they can be exchanged
            content = content.replace(own, core)
    read = read_weights(save(tmp_path / "a.pkl", content))
    assert read["sizes"] == [0.5, (1, None, "x")] and read["__author__"] == "us"
    assert list(read["model"]) == list(ARRAYS)
    for name, array in ARRAYS.items():
        ours = read["model"][name]
        assert ours.dtype == array.dtype.newbyteorder("=") and ours.shape == array.shape, name
        np.testing.assert_array_equal(ours, array)
        if name != "names":
            torch.from_numpy(ours).zero_()  # native, and its own writable memory


def python2_pickle(arrays, core):
    """What Python 2 with numpy 1 wrote: protocol 2, byte strings for names and for memory."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    content = b"\x80\x02}("
    for name, array in arrays.items():
        raw = array.tobytes()
        shape = b"(" + b"".join(b"K" + bytes([size]) for size in array.shape) + b"t"
        content += text(name.encode())
        content += b"c" + core + b".multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        content += text(b"b") + b"\x87R(K\x01" + shape
        content += b"cnumpy\ndtype\n" + text(array.dtype.str[1:].encode()) + b"K\x00K\x01\x87R"
        content += b"(K\x03" + text(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        content += b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    return content + b"u."


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_pickles_of_python_2_are_read(tmp_path, core):
    arrays = {"conv1_w": ARRAYS["float"], "conv1_b": np.array([-1.5, 2.0], "f8")}
    content = python2_pickle(arrays, core)
    if core == b"numpy.core":  # the crafted bytes are what they claim to be
        as_numpy_reads = pickle.loads(content, encoding="latin1")
        np.testing.assert_array_equal(as_numpy_reads["conv1_b"], [-1.5, 2])
    read = read_weights(save(tmp_path / "a.pkl", content))
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype


def test_shared_and_circular_objects_are_kept(tmp_path):
    array = np.arange(3.0)
    loop = [array, {"same": array}]
    loop.append(loop)
    read = read_weights(save(tmp_path / "a.pkl", {"loop": loop, "pair": (array, array)}))
    assert read["loop"][2] is read["loop"]
    assert read["loop"][0] is read["loop"][1]["same"] is read["pair"][0] is read["pair"][1]


def test_state_dict_versions_survive(tmp_path):
    state = torch.nn.BatchNorm2d(2).state_dict()
    arrays = OrderedDict((name, value.numpy()) for name, value in state.items())
    arrays._metadata = state._metadata
    read = read_weights(save(tmp_path / "a.pkl", {"model": arrays}))["model"]
    assert type(read) is OrderedDict and read._metadata == state._metadata
    torch.nn.BatchNorm2d(2).load_state_dict({k: torch.as_tensor(v) for k, v in read.items()})


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.bin", "a.pth.tar", "a.pkl"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_are_known_by_content(tmp_path, name, zipped):
    data = {"model": {"w": torch.randn(3, 2), "n": torch.tensor(3)}, "iteration": 5}
    path = save_torch(tmp_path / name, data, _use_new_zipfile_serialization=zipped)
    read = read_weights(path)
    assert read["iteration"] == 5
    torch.testing.assert_close(read["model"], data["model"], rtol=0, atol=0)


def test_pickle_with_torch_suffix_is_read(tmp_path):
    read = read_weights(save(tmp_path / "a.pth", {"w": np.arange(3)}))
    np.testing.assert_array_equal(read["w"], np.arange(3))


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_safetensors_are_read(tmp_path, name):
    safetensors = pytest.importorskip("safetensors.torch")
    weights = {"w": torch.randn(3, 2), "half": torch.ones(2, dtype=torch.bfloat16)}
    safetensors.save_file(weights, tmp_path / name)
    torch.testing.assert_close(read_weights(tmp_path / name), weights, rtol=0, atol=0)


# --- what is refused ------------------------------------------------------------------------------


def attacks(proof):
    """{kind: (the file's content, the name it asks for)}; run, each writes the file `proof`."""
    command = f"touch {proof}"
    old_text = f"S'{command}'\n".encode()
    text = b"X" + struct.pack("<I", len(command)) + command.encode()
    return {
        "reduce": (Attack(os.system, command), f"{os.system.__module__}.system"),
        "eval": (Attack(eval, f"open({str(proof)!r}, 'w').close()"), "(__builtin__|builtins).eval"),
        "inst opcode": (b"(" + old_text + b"ios\nsystem\n.", "os.system"),
        "obj opcode": (b"(cos\nsystem\n" + old_text + b"o.", "os.system"),
        "stack global": (b"\x80\x04\x8c\x02os\x8c\x06system\x93" + text + b"\x85R.", "os.system"),
        "newobj": (b"\x80\x02csubprocess\nPopen\n" + text + b"\x85\x81.", "subprocess.Popen"),
        "through numpy": (b"cnumpy\nload\n" + text + b"\x85R.", "numpy.load"),
        "through torch": (b"ctorch\nload\n" + text + b"\x85R.", "torch.load"),
        "through getattr": (b"c__builtin__\ngetattr\n" + text * 2 + b"\x86R.", "__builtin__.geta"),
    }


@pytest.mark.parametrize("kind", attacks("x"))
def test_malicious_pickle_does_not_run(tmp_path, kind):
    content, asked = attacks(tmp_path / "proof")[kind]
    path = save(tmp_path / "a.pkl", content)
    with pytest.raises(ValueError, match=rf"a\.pkl asks for {asked}.*, so it cannot be trusted"):
        read_weights(path)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("kind", ["reduce", "eval", "inst opcode", "obj opcode", "stack global"])
def test_the_malicious_pickles_are_real_ones(tmp_path, kind):
    content, _ = attacks(tmp_path / "proof")[kind]
    pickle.loads(save(tmp_path / "a.pkl", content).read_bytes())
    assert (tmp_path / "proof").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["a.pth", "a.pkl"])
def test_malicious_torch_file_does_not_run(tmp_path, zipped, name):
    data = {"model": {"w": torch.ones(2)}, "x": Attack(os.system, f"touch {tmp_path / 'proof'}")}
    path = save_torch(tmp_path / name, data, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=rf"{name} asks for \w+\.system, so it cannot be trusted"):
        read_weights(path)
    assert not (tmp_path / "proof").exists()


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
DTYPE = b"cnumpy\ndtype\n"


@pytest.mark.parametrize(
    "content, reason",
    [
        ({"w": np.array([{}, None], dtype=object)}, "numpy type 'O8': only arrays of numbers"),
        ({"w": np.zeros(2, dtype=[("a", "f4"), ("b", "O")])}, "numpy type 'V12'"),
        (DTYPE + b"S'f4,O'\n\x85R.", "numpy type 'f4,O'"),
        (b"cnumpy\nndarray\nK\x09\x85R.", "makes an array of raw memory"),
        (RECONSTRUCT + b"Nb.", "sets the state of a function or class"),
        (b"ccollections\nOrderedDict\nN}S'update'\nNs\x86b.", "sets the state of"),
        (b"ccollections\nOrderedDict\n)R}S'items'\nNsb.", "gives attributes to a dict"),
        (b"}S'w'\n" + RECONSTRUCT + b"s.", "holds a function or class instead of a value"),
        (b"}S'w'\n" + RECONSTRUCT + b"N\x85Rs.", "an array without content"),
        (b"c_codecs\nencode\nVabc\nVrot13\n\x86R.", "encodes bytes as 'rot13'"),
        (b"ccollections\nOrderedDict.fromkeys\n.", r"asks for collections\.OrderedDict\.fromkeys"),
        (b"\x80\x02}q\x00U\x01wK\x01Qs.", "cannot be read"),
        (b"this is a note, not a weight file", "cannot be read .* truncated, damaged or not a"),
        ([np.ones(2)], "holds a list and not a dict"),
    ],
)
def test_odd_pickles_are_refused(tmp_path, content, reason):
    with pytest.raises(ValueError, match=rf"a\.pkl .*{reason}"):
        read_weights(save(tmp_path / "a.pkl", content))


def doubled_key():
    """A dict with one key, a tuple in which each level is twice the one below."""
    levels = b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))
    return b"}K\x01" + levels + b"K\x02s."


def many_copies(of_text, count=3000):
    """A list of bytes or arrays that are all made of the same 100,000 bytes of the file."""
    raw = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"q\x00"
    encode = b"c_codecs\nencode\nq\x01"
    if of_text:
        return raw + encode + b"](" + b"h\x01h\x00X\x06\0\0\0latin1\x86R" * count + b"e."
    dtype = DTYPE + b"S'u1'\n\x85Rq\x02"
    shape = b"J" + struct.pack("<i", 100_000) + b"\x85"
    make = RECONSTRUCT + b"N\x85R(K\x01" + shape + b"h\x02I00\nh\x00tb"
    return raw + dtype + b"](" + make * count + b"e."


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"\x80\x02]r\0\0\0\x10.", "holds a list and not a dict"),  # memo number 2**28
        (b"\x80\x02]r\xff\xff\xff\x7f.", "holds a list and not a dict"),
        (b"]p999999999999\n.", "holds a list and not a dict"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b".", "ends too early"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**30) + b".", "cannot be read"),
        (doubled_key(), "has a dict whose keys are no names"),
        (b"ccollections\nOrderedDict\n](](" + doubled_key()[1:-2] + b"ee\x85R.", "no names"),
        (b"\x80\x04\x8f.", "holds a set"),
        (many_copies(of_text=True), "makes more bytes than it has"),
        (many_copies(of_text=False), "makes more bytes than it has"),
        (b"(" * 100_000 + b"l" * 100_000 + b".", "cannot be read"),
    ],
)  # fmt: skip
def test_a_small_file_takes_little_memory_and_time(tmp_path, content, reason):
    path = save(tmp_path / "a.pkl", content)
    start = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"a\.pkl .*({reason})"):
            read_weights(path)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20 + 10 * len(content)
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < 20


def test_array_longer_than_its_memory_is_refused(tmp_path):
    content = pickle.dumps({"w": np.zeros(3, "f4")}, protocol=2).replace(b"K\x03\x85", b"K\x63\x85")
    with pytest.raises(ValueError, match="cannot be read .*reshape"):
        read_weights(save(tmp_path / "a.pkl", content))


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "is empty. Remove it and download or copy it again"),
        (b"\n<!DOCTYPE html><html>sign in</html>", r"is a web page \(HTML\)"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "is a git-lfs poi.*lfs pull"),
    ],
)
@pytest.mark.parametrize("name", ["a.pkl", "a.pth", "a.safetensors"])
def test_what_is_not_a_weight_file_is_named(tmp_path, name, content, reason):
    with pytest.raises(ValueError, match=rf"{name} {reason}"):
        read_weights(save(tmp_path / name, content))


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.pth does not exist\. Correct"):
        read_weights(tmp_path / "a.pth")
    with pytest.raises(FileNotFoundError, match="is a folder, not a weight file"):
        read_weights(tmp_path)


def whole_files(folder):
    weights = {"w": torch.randn(300), "b": torch.randn(20)}
    save_torch(folder / "zip.pth", weights)
    save_torch(folder / "legacy.pth", weights, _use_new_zipfile_serialization=False)
    save(folder / "arrays.pkl", {name: value.numpy() for name, value in weights.items()})
    pytest.importorskip("safetensors.torch").save_file(weights, folder / "a.safetensors")
    return sorted(folder.iterdir())


def test_truncated_files_of_every_format_are_named(tmp_path):
    for path in whole_files(tmp_path):
        content = path.read_bytes()
        for size in (20, len(content) // 2, len(content) - 5):
            path.write_bytes(content[:size])
            assert not is_whole(path)
            with pytest.raises(ValueError, match=rf"{path.name} cannot be read .*truncated"):
                read_weights(path)


def test_damaged_files_are_not_whole(tmp_path):
    assert all(is_whole(path) for path in whole_files(tmp_path))
    assert not is_whole(tmp_path / "missing.pth")
    content = bytearray((tmp_path / "zip.pth").read_bytes())
    content[content.index((tmp_path / "legacy.pth").read_bytes()[-40:-20])] ^= 255
    (tmp_path / "zip.pth").write_bytes(content)
    assert not is_whole(tmp_path / "zip.pth")


def test_programs_and_foreign_archives_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "script.pth", "w") as archive:
        archive.writestr("a/data.pkl", b"}.")
        archive.writestr("a/constants.pkl", b").")
    with pytest.raises(ValueError, match="is a TorchScript program"):
        read_weights(tmp_path / "script.pth")


def test_tar_archive_that_poses_as_legacy_torch_file_is_refused(tmp_path):
    name = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    with tarfile.open(tmp_path / "a.pth", "w", encoding="latin1", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo(name.decode("latin1")), io.BytesIO())
    assert (tmp_path / "a.pth").read_bytes().startswith(name)
    with pytest.raises(ValueError, match="is a tar archive"):
        read_weights(tmp_path / "a.pth")


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"}.")
        archive.writestr("a/data/0", bytes(10_000_000))
    with pytest.raises(ValueError, match="unpacks to more bytes"):
        read_weights(tmp_path / "a.pth")


# --- checkpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda blobs: {"blobs": blobs, "cfg": "…"}, lambda blobs: blobs])
def test_caffe2_files_are_matched_by_suffix_without_momenta(tmp_path, wrap):
    blobs = {"conv1_w": np.ones(2), "conv1_w_momentum": np.ones(2)}
    read = read_checkpoint(save(tmp_path / "a.pkl", wrap(blobs)))
    assert read.keys() == {"model", "__author__", "matching_heuristics"}
    assert read["__author__"] == "Caffe2" and read["matching_heuristics"] is True
    assert list(read["model"]) == ["conv1_w"]


@pytest.mark.parametrize("extra", [{}, {"matching_heuristics": True}, {"__author__": "us"}])
def test_zoo_files_stay_as_they_are(tmp_path, extra):
    read = read_checkpoint(save(tmp_path / "a.pkl", {"model": {"w": np.ones(2)}, **extra}))
    assert read.keys() == {"model", *extra}


def test_bare_state_dicts_are_wrapped(tmp_path):
    path = save_torch(tmp_path / "a.pth", {"w": torch.ones(2)})
    assert read_checkpoint(path) == {"model": {"w": pytest.approx(torch.ones(2))}}
    assert read_checkpoint(path, matching_heuristics=True)["matching_heuristics"] is True


def test_pycls_files_are_matched_by_suffix(tmp_path):
    path = save_torch(tmp_path / "a.pyth", {"model_state": {"w": torch.ones(2)}, "epoch": 3})
    read = read_checkpoint(path)
    assert read["matching_heuristics"] is True and list(read["model"]) == ["w"]


def test_of_two_sets_of_weights_the_averages_are_read(tmp_path):
    content = {"state_dict": {"w": torch.ones(2)}, "state_dict_ema": {"w": torch.zeros(2)}}
    read = read_checkpoint(save_torch(tmp_path / "a.pth.tar", content))
    assert read["model"]["w"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "meta", [{"CLASSES": ("a", "b")}, {"dataset_meta": {"classes": ("a", "b"), "palette": []}}]
)
def test_files_of_mmsegmentation_have_their_class_names(tmp_path, meta):
    content = {"meta": meta, "state_dict": {"w": torch.ones(2)}}
    read = read_checkpoint(save_torch(tmp_path / "a.pth", content))
    assert list(read["model"]) == ["w"] and read["class_names"] == ["a", "b"]
    del content["meta"]
    assert read_checkpoint(save_torch(tmp_path / "b.pth", content)).keys() == {"model"}


@pytest.mark.parametrize(
    "content, reason",
    [
        ({"model": [1]}, "has a list under 'model'"),
        ({"optimizer": {"w": torch.ones(2)}}, "holds a dict under 'optimizer'"),
        ({"state_dict": {"w": 1.0}}, "holds a float under 'w'"),
        ({"model": {"w": torch.ones(2), "lr": 0.5}}, "holds a float under 'lr'"),
    ],
)
def test_checkpoints_without_weights_are_named(tmp_path, content, reason):
    with pytest.raises(ValueError, match=rf"a\.pth {reason}"):
        read_checkpoint(save_torch(tmp_path / "a.pth", content))


# --- names and addresses --------------------------------------------------------------------------


class Offline(PathHandler):
    def _get_supported_prefixes(self):
        return ["detectron2://", "https://"]

    def _get_local_path(self, path, **kwargs):
        raise URLError("Name or service not known")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    manager = PathManager()
    manager.register_handler(Offline())
    return manager


def test_local_files_are_found_and_their_query_is_read(tmp_path, offline):
    path = str(save(tmp_path / "a.pkl", b"."))
    assert locate(path, offline) == (path, False)
    assert locate(f"{path}?matching_heuristics=True", offline) == (path, True)
    assert locate(f"{path}?matching_heuristics=False", offline) == (path, False)


def test_unknown_query_is_named(tmp_path, offline):
    with pytest.raises(ValueError, match=r"only matching_.* may follow '\?', but download does"):
        locate("https://host/a.pkl?download=1", offline)


def test_missing_local_file_names_the_key(tmp_path, offline):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/a\.pth does not exist\. .*MODEL"):
        locate(tmp_path / "a.pth", offline)


@pytest.mark.parametrize("name", ["detectron2://x/R-50.pkl", "https://h/detectron2/x/R-50.pkl"])
def test_offline_error_names_the_path_of_the_cache(tmp_path, offline, name):
    expected = rf"R-50\.pkl could not be downloaded .*{tmp_path}/cache/detectron2/x/R-50\.pkl"
    with pytest.raises(FileNotFoundError, match=expected):
        locate(name, offline)


def test_of_a_folder_the_weights_are_taken(tmp_path, offline):
    with pytest.raises(FileNotFoundError, match="has no model.safetensors or pytorch_model.bin"):
        locate(tmp_path, offline)
    save(tmp_path / "model.safetensors.index.json", b"{}")
    with pytest.raises(ValueError, match="has its weights in several files"):
        locate(tmp_path, offline)
    for name in ("pytorch_model.bin", "model.safetensors"):
        save(tmp_path / name, b".")
        assert locate(tmp_path, offline) == (str(tmp_path / name), False)
