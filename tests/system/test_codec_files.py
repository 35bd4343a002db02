"""The whole path: arrays and files in, bytes out, and back, as a user of the codec meets it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import shvc_lib
from shvc_lib import cli, data
from shvc_lib.errors import ShvcError, UnsupportedImage


def run(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "shvc_lib.cli", *map(str, arguments)], capture_output=True, text=True, **options)


@pytest.fixture
def photo(tmp_path):
    image = data.photograph("coffee")[100:164, 200:296]
    Image.fromarray(image).save(tmp_path / "photo.png")
    return tmp_path / "photo.png", image


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4), (1, 300, 3)])
def test_shapes_and_dtype_come_back(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8) // 16
    back = shvc_lib.decode(shvc_lib.encode(image))
    assert back.shape == image.shape and back.dtype == np.uint8 and np.array_equal(back, image)
    assert back.flags.writeable


def test_noncontiguous_and_readonly_images():
    image = data.photograph("chelsea")[40:0:-2, 5:50:3]
    image.flags.writeable = False
    assert np.array_equal(shvc_lib.decode(shvc_lib.encode(image)), image)


def test_noise_is_stored_not_expanded():
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    file = shvc_lib.encode(noise)
    assert shvc_lib.info(file)["stored"] and len(file) <= noise.size + 8
    assert np.array_equal(shvc_lib.decode(file), noise)
    assert not shvc_lib.info(shvc_lib.encode(noise // 64))["stored"]


@pytest.mark.parametrize("image, what", [
    (np.zeros((4, 4, 3), np.float32), "float32"), (np.zeros((4, 4, 3), np.int16), "int16"), (np.zeros((4, 4, 2), np.uint8), "shape"),
    (np.zeros((0, 4, 3), np.uint8), "shape"), (np.zeros(4, np.uint8), "shape"), (np.zeros((2, 2, 2, 2), np.uint8), "shape"), ("photo.png", "<U9"),
    (None, "object"),
])
def test_unsupported_images_are_refused_by_name(image, what):
    with pytest.raises(UnsupportedImage, match=what) as caught:
        shvc_lib.encode(image)
    assert "\n" not in str(caught.value)


def test_info_counts_bytes():
    image = data.photograph("chelsea")[:50, :60]
    file = shvc_lib.encode(image)
    facts = shvc_lib.info(file)
    assert facts["bytes"] == len(file) == facts["header_bytes"] + facts["payload_bytes"]
    assert facts["shape"] == image.shape and facts["bits_per_dim"] == 8 * len(file) / image.size


def test_command_line_round_trip_in_fresh_processes(photo):
    path, image = photo
    encoded = run("encode", path)
    assert encoded.returncode == 0 and not encoded.stderr, encoded.stderr
    file = path.with_suffix(".shvc")
    assert file.read_bytes() == shvc_lib.encode(image)
    assert f"{file.stat().st_size} bytes" in encoded.stdout and f"{8 * file.stat().st_size / image.size:.3f} bits per sub-pixel" in encoded.stdout
    shown = run("info", file)
    assert shown.returncode == 0 and shvc_lib.info(file.read_bytes())["model"] in shown.stdout and "64 x 96 x 3" in shown.stdout
    back = path.with_name("back.png")
    assert run("decode", file, back).returncode == 0
    assert np.array_equal(np.asarray(Image.open(back)), image)


def test_installed_command():
    out = subprocess.run([Path(sys.executable).with_name("shvc"), "models"], capture_output=True, text=True)
    assert out.returncode == 0 and "linear" in out.stdout


def refused(capsys, *arguments):
    """Run the command line in this process; it must fail with exactly one line on standard error. Returns that line."""
    assert cli.main([str(a) for a in arguments]) == 1
    streams = capsys.readouterr()
    assert streams.out == "" and streams.err.count("\n") == 1 and streams.err.startswith("shvc: "), streams
    return streams.err


def test_nothing_is_overwritten_without_force(photo, capsys, tmp_path):
    path, image = photo
    precious = tmp_path / "photo.shvc"
    precious.write_bytes(b"precious")
    assert "exists" in refused(capsys, "encode", path)
    assert precious.read_bytes() == b"precious"
    assert cli.main(["encode", str(path), "--force"]) == 0
    capsys.readouterr()
    before = path.read_bytes()
    assert "exists" in refused(capsys, "decode", precious)  # would replace photo.png
    assert path.read_bytes() == before
    assert "replace the input" in refused(capsys, "encode", path, path, "--force")
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photo.png", "photo.shvc"]  # no temporary files left


def test_an_output_folder_and_a_note_when_the_file_grows(photo, capsys, tmp_path):
    path, image = photo
    (tmp_path / "out").mkdir()
    assert cli.main(["encode", str(path), str(tmp_path / "out")]) == 0
    assert cli.main(["decode", str(tmp_path / "out" / "photo.shvc"), str(tmp_path / "out")]) == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "photo.png")), image)
    assert "note" not in capsys.readouterr().err
    assert "exists" in refused(capsys, "encode", path, tmp_path / "out")
    Image.fromarray(image).save(tmp_path / "photo.jpg", quality=30)
    Image.fromarray(image[..., 0] // 128 * 255).convert("1").save(tmp_path / "two.png")
    for name, word in (("photo.jpg", "with loss;"), ("two.png", "few colours")):
        assert cli.main(["encode", str(tmp_path / name), "--force"]) == 0
        assert word in capsys.readouterr().err


def test_bad_input_is_one_line_and_leaves_no_file(photo, capsys, tmp_path):
    path, _ = photo
    assert "no such file" in refused(capsys, "encode", tmp_path / "absent.png")
    assert "no such file" in refused(capsys, "decode", tmp_path / "absent.shvc")
    assert "no such file" in refused(capsys, "info", tmp_path / "absent.shvc")
    assert "no model" in refused(capsys, "encode", path, tmp_path / "out.shvc", "--model", "none")
    (tmp_path / "text.png").write_text("not a picture")
    refused(capsys, "encode", tmp_path / "text.png")
    refused(capsys, "decode", path, tmp_path / "out.png")
    refused(capsys, "encode", tmp_path, tmp_path / "out.shvc")
    refused(capsys, "info", tmp_path)
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "deep.tif")
    assert "deep.tif" in refused(capsys, "encode", tmp_path / "deep.tif")
    file = tmp_path / "photo.shvc"
    file.write_bytes(shvc_lib.encode(data.photograph("coffee")[:20, :20])[:-1])
    refused(capsys, "decode", file, tmp_path / "out.png")
    file.write_bytes(shvc_lib.encode(data.photograph("coffee")[:20, :20]))
    assert "lossless" in refused(capsys, "decode", file, tmp_path / "out.jpg")
    refused(capsys, "decode", file, tmp_path / "no" / "folder.png")
    refused(capsys, "data", "get", "no-such-set")
    for command in ("encode", "decode"):
        refused(capsys, command, ".")
        refused(capsys, command, "/")
        refused(capsys, command, "x" * 5000)
    assert {p.name for p in tmp_path.iterdir()} == {"photo.png", "text.png", "deep.tif", "photo.shvc"}


def test_same_bytes_in_another_process_and_with_other_thread_counts(photo, tmp_path):
    path, image = photo
    expected = shvc_lib.encode(image)
    for threads in ("1", "2"):
        out = tmp_path / f"{threads}.shvc"
        environment = {**os.environ, **{k: threads for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}}
        assert run("encode", path, out, env=environment).returncode == 0
        assert np.array_equal(shvc_lib.decode(out.read_bytes()), image)
        assert run("decode", out, tmp_path / f"{threads}.png", env=environment).returncode == 0
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"{threads}.png")), image)
    assert np.array_equal(shvc_lib.decode(expected), image)


def test_every_error_of_ours_is_one_family():
    from shvc_lib import errors
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(classes) > 5 and all(issubclass(c, ShvcError) for c in classes)


def test_odd_names_are_refused_before_any_work(photo, capsys, tmp_path, monkeypatch):
    path, _ = photo
    file = tmp_path / "a.shvc"
    cli.main(["encode", str(path), str(file), "--model", "linear"])
    capsys.readouterr()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "other.png")
    (tmp_path / "link.shvc").symlink_to("nowhere")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.exists()}
    for name in ("encode", "decode"):
        monkeypatch.setattr(cli.codec, name, None)  # nothing is coded
    assert "image" in refused(capsys, "encode", path, tmp_path / "other.png", "--force")  # as by `shvc encode *.png --force`
    assert "no such folder" in refused(capsys, "encode", path, f"{tmp_path}/new/")
    assert "folder" in refused(capsys, "encode", path, tmp_path / "no" / "b.shvc")
    assert "exists" in refused(capsys, "encode", path, tmp_path / "link.shvc")
    assert "lossless format" in refused(capsys, "decode", file, tmp_path / "b.jpg")
    for arguments in (["encode", "-"], ["encode", path, "-"], ["decode", file, "-"], ["info", "-"], ["bench", "--images", "-"]):
        assert "standard input" in refused(capsys, *arguments)
    for arguments in (["encode", ""], ["encode", path, ""], ["decode", file, ""], ["info", ""], ["bench", "--images", ""]):
        assert "empty" in refused(capsys, *arguments)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.exists()} == before


def test_arguments_that_nothing_would_heed_are_refused(photo, capsys, tmp_path):
    path, image = photo
    file = tmp_path / "a.shvc"
    file.write_bytes(shvc_lib.encode(image, "linear"))
    assert "--workers" in refused(capsys, "encode", path, tmp_path / "b.shvc", "--model", "linear", "--workers", "0")
    assert "--workers" in refused(capsys, "decode", file, tmp_path / "b.png", "--workers", "0")
    assert "--tile" in refused(capsys, "encode", path, tmp_path / "b.shvc", "--model", "pln", "--tile", "16")
    assert not (tmp_path / "b.shvc").exists() and not (tmp_path / "b.png").exists()


def test_errors_name_the_file(photo, capsys, tmp_path):
    path, image = photo
    (tmp_path / "empty.shvc").touch()
    (tmp_path / "cut.shvc").write_bytes(shvc_lib.encode(image, "linear")[:-9])
    (tmp_path / "cut.shva").write_bytes(b"SHVA\x02")
    (tmp_path / "picture.shvc").write_bytes(path.read_bytes())
    for name, word in (("empty.shvc", "empty"), ("cut.shvc", "ends"), ("cut.shva", "ends"), ("picture.shvc", "no .shvc file")):
        for arguments in (["info"], ["decode"]):
            said = refused(capsys, *arguments, tmp_path / name, *([tmp_path / "out"] if arguments == ["decode"] else []))
            assert said.startswith(f"shvc: {tmp_path / name}: ") and word in said
    for data_ in (shvc_lib.encode(image, "linear"), shvc_lib.encode(image[:32, :32])):
        (tmp_path / "b.shvc").write_bytes(data_)
        assert "shvc decode" in refused(capsys, "encode", tmp_path / "b.shvc", tmp_path / "c.shvc")


def test_what_a_file_loses_beside_its_pixels_is_said(photo, capsys, tmp_path):
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(photo[1]).save(tmp_path / "turned.png", exif=turned)
    assert cli.main(["encode", str(tmp_path / "turned.png"), "--model", "linear"]) == 0
    assert capsys.readouterr().err == "note: turned.png: only pixels are kept, not the EXIF orientation 6 (viewers show it turned)\n"


def test_names_that_the_terminal_cannot_show(photo, tmp_path):
    """A name that is no UTF-8, a terminal that knows ASCII only: the line is printed all the same."""
    for name in (b"\xff.png", "é.png".encode()):
        path = os.path.join(os.fsencode(tmp_path), name)
        with open(path, "wb") as file:
            file.write(photo[0].read_bytes())
        command = [sys.executable, "-m", "shvc_lib.cli", "encode", path, "--model", "linear"]
        done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii:strict"})
        assert done.returncode == 0 and done.stdout.count(b"\n") == 1 and not done.stderr, done.stderr


def test_the_second_process_of_torchrun_meets_what_the_first_has_written(photo, capsys, tmp_path, monkeypatch):
    """One that comes late finds the file; it is no error. What is not shared, an album for example, is the first's alone."""
    path, image = photo
    (tmp_path / "in").mkdir()
    Image.fromarray(image[:16, :16]).save(tmp_path / "in" / "a.png")
    file, folder = tmp_path / "photo.shvc", tmp_path / "in.shva"
    for arguments in (["encode", path, "--model", "linear"], ["decode", file, tmp_path / "back.png"],
                      ["encode", tmp_path / "in", "--model", "shvc-short-arib", "--workers", "1"], ["decode", folder, tmp_path / "out", "--workers", "1"],
                      ["info", file], ["info", folder], ["models"]):
        for number in "01":
            with monkeypatch.context() as patch:
                patch.setenv("RANK", number)
                patch.setenv("WORLD_SIZE", "2")
                assert cli.main([str(a) for a in arguments]) == 0, arguments
            streams = capsys.readouterr()
            assert bool(streams.out) == (number == "0") and not streams.err, arguments
