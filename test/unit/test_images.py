# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import builtins
import io
import math
import random
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alocc_ros.errors import CalibrationError, ImageError, ParameterError
from alocc_ros.stream.decoding import SUPPORTED_ENCODINGS, decode
from alocc_ros.stream.image_geometry import Crop, Undistortion, resize_and_crop
from alocc_ros.stream.preprocessing import MEAN, STD, Preprocessor, preprocess
from alocc_ros.types import CAMERAS, Calibration, CameraImage, FrameSet

SAMPLE = Path(__file__).parents[3] / "shared/data/nuscenes_scene0061_sample"


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:  # [h, w, 3] uint8
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scene(height: int, width: int) -> np.ndarray:  # [h, w, 3] uint8
    """Something smooth, so that JPEG hardly changes it."""
    v, u = np.mgrid[0:height, 0:width]
    channels = [u * 255 / width, v * 255 / height, 127 + 120 * np.sin(u / 40) * np.cos(v / 30)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def encoded(pixels: np.ndarray, form: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def compressed(data: bytes, encoding: str = "jpeg") -> CameraImage:
    return CameraImage("cam_front", 1, data, encoding)


def raw(pixels: np.ndarray, encoding: str = "rgb8") -> CameraImage:
    return CameraImage("cam_front", 1, pixels, encoding)


def calibration(camera: str, width: int = 1600, height: int = 900, **more: object) -> Calibration:
    matrix = np.array([[1266.0, 0, width / 2], [0, 1266.0, height / 2], [0, 0, 1.0]])
    return Calibration(camera, width, height, matrix, np.eye(4), **more)


def frame(
    taken: Mapping[str, CameraImage], calibrations: Mapping[str, Calibration] | None = None
) -> FrameSet:
    calibrations = calibrations or {c: calibration(c) for c in CAMERAS}
    return FrameSet(1, taken, calibrations, np.eye(4), {})


@pytest.fixture(scope="module")
def real() -> dict[str, CameraImage]:
    if not SAMPLE.is_dir():
        pytest.skip(f"no real images: {SAMPLE.name} is not here")
    files = {c: (SAMPLE / f"{c.upper()}.jpg").read_bytes() for c in CAMERAS}
    return {c: CameraImage(c, 1, data, "jpeg") for c, data in files.items()}


# The obvious twin: bicubic interpolation with eight-bit rounding, from its definition ----------


def bicubic(x: float) -> float:
    x, a = abs(x), -0.5
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return 0.0


def filter_matrix(size_in: int, size_out: int) -> np.ndarray:  # [out, in], 22 bit fixed point
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    out = np.zeros((size_out, size_in))
    for row in range(size_out):
        centre = (row + 0.5) * scale
        begin = max(int(centre - 2.0 * stretch + 0.5), 0)
        end = min(int(centre + 2.0 * stretch + 0.5), size_in)
        taps = [bicubic((i - centre + 0.5) / stretch) for i in range(begin, end)]
        total = sum(taps)
        out[row, begin:end] = [math.trunc(t / total * 2**22 + math.copysign(0.5, t)) for t in taps]
    return out


def resize_twin(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:  # (w, h)
    """Horizontal pass, rounded to bytes, then the vertical pass."""
    for axis, length in ((1, size[0]), (0, size[1])):
        if pixels.shape[axis] != length:
            matrix = filter_matrix(pixels.shape[axis], length)
            sums = np.tensordot(matrix, pixels.astype(np.float64), (1, axis))
            sums = np.moveaxis(sums, 0, axis).astype(np.int64)
            pixels = np.clip((sums + 2**21) >> 22, 0, 255).astype(np.uint8)
    return pixels


def preprocess_twin(
    pixels: np.ndarray, crop: Crop, mean: tuple = MEAN, std: tuple = STD
) -> np.ndarray:
    whole = resize_twin(pixels, crop.resized)
    height, width = crop.input_size
    cut = whole[crop.top : crop.top + height, crop.left : crop.left + width]
    bgr = cut[..., ::-1].astype(np.float64)
    return np.moveaxis((bgr - np.array(mean)) / np.array(std), -1, 0)


# Preprocessing ---------------------------------------------------------------------------------


def test_nuscenes_images_are_scaled_by_044_and_lose_their_upper_140_rows() -> None:
    crop = Crop.fit(1600, 900)
    assert crop == Crop(1600, 900, 0.44, (704, 396), 0, 140, (256, 704))
    np.testing.assert_allclose(crop.post_rotation(), np.diag([0.44, 0.44, 1.0]), atol=1e-15)
    np.testing.assert_array_equal(crop.post_translation(), [0, -140, 0])
    full = Crop.fit(1600, 900, (896, 1600))
    assert full == Crop(1600, 900, 1.0, (1600, 900), 0, 4, (896, 1600))


def test_a_real_image_becomes_what_the_definition_says(real: dict[str, CameraImage]) -> None:
    crop = Crop.fit(1600, 900)
    pixels = np.asarray(Image.open(io.BytesIO(real["cam_back"].data)))
    np.testing.assert_array_equal(decode(real["cam_back"]), pixels)
    found = preprocess(real["cam_back"], crop)
    assert found.shape == (3, 256, 704)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, preprocess_twin(pixels, crop), rtol=0, atol=1e-6)


def test_real_images_equal_pillow_resizing_the_whole(real: dict[str, CameraImage]) -> None:
    for image in real.values():
        opened = Image.open(io.BytesIO(image.data))
        whole = opened.resize((704, 396), Image.Resampling.BICUBIC).crop((0, 140, 704, 396))
        cut = resize_and_crop(opened, Crop.fit(1600, 900))
        np.testing.assert_array_equal(np.asarray(cut), np.asarray(whole))


# Some of them scale by no round ratio, some are enlarged.
COMMON = [
    (1600, 900), (1280, 720), (1920, 1080), (1920, 1200), (1936, 1216), (1920, 1208),
    (1440, 1080), (1280, 960), (1920, 1280), (2048, 1536), (800, 600), (640, 480),
]  # fmt: skip


@pytest.mark.parametrize("size", COMMON)
def test_left_out_rows_change_no_pixel_of_common_cameras(size: tuple[int, int]) -> None:
    crop = Crop.fit(*size)
    image = Image.fromarray(noise(size[1], size[0]))
    narrow = image.resize((crop.resized[0], size[1]), Image.Resampling.BICUBIC)
    whole = np.asarray(narrow.resize(crop.resized, Image.Resampling.BICUBIC))
    expected = whole[crop.top : crop.top + 256, crop.left : crop.left + 704]
    np.testing.assert_array_equal(np.asarray(resize_and_crop(image, crop)), expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(20, 300), st.integers(20, 300), st.integers(0, 2**32 - 1))
def test_left_out_rows_change_no_pixel_of_any_camera(width: int, height: int, seed: int) -> None:
    crop = Crop.fit(width, height, (32, 88))
    pixels = noise(height, width, seed)
    top, left = crop.top, crop.left
    expected = resize_twin(pixels, crop.resized)[top : top + 32, left : left + 88]
    found = np.asarray(resize_and_crop(Image.fromarray(pixels), crop))
    np.testing.assert_array_equal(found, expected)


@settings(deadline=None, max_examples=300)
@given(st.integers(64, 4000), st.integers(64, 4000))
def test_every_crop_covers_the_input_and_keeps_the_bottom(width: int, height: int) -> None:
    crop = Crop.fit(width, height)
    assert crop.resized[0] - crop.left >= 704
    assert crop.resized[1] - crop.top == 256
    assert crop.left >= 0
    assert crop.top >= 0
    assert 704 in crop.resized or 256 in crop.resized
    for true, size in zip(crop.resized, (width, height), strict=True):
        assert -1.0 < true - size * crop.scale <= 1e-5
    bottom = crop.post_rotation() @ [0, height, 1] + crop.post_translation()
    assert bottom[1] == pytest.approx(256)


def test_a_spot_in_the_image_is_where_the_crop_says() -> None:
    for size in ((1600, 900), (1936, 1216), (900, 300)):
        crop = Crop.fit(*size)
        pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
        u, v = size[0] // 2 + 100, size[1] - 60
        pixels[v - 4 : v + 5, u - 4 : u + 5] = 255
        cut = np.asarray(resize_and_crop(Image.fromarray(pixels), crop))[..., 0]
        rows, columns = np.mgrid[0:256, 0:704]
        weight = cut / cut.sum()
        # The half pixel: Pillow's pixel i covers [i, i + 1], the geometry has its centre at i.
        found = np.array([(columns * weight).sum(), (rows * weight).sum()]) + 0.5
        said = (crop.post_rotation() @ [u + 0.5, v + 0.5, 1] + crop.post_translation())[:2]
        np.testing.assert_allclose(found, said, atol=0.05)


def test_blue_is_first_and_normalised_with_the_numbers_of_red() -> None:
    pixels = np.zeros((900, 1600, 3), dtype=np.uint8)
    pixels[:] = (10, 20, 200)
    found = preprocess(raw(pixels), Crop.fit(1600, 900))
    blue, green, red = found[:, 100, 100]
    assert blue == pytest.approx((200 - 123.675) / 58.395, abs=1e-6)
    assert green == pytest.approx((20 - 116.28) / 57.12, abs=1e-6)
    assert red == pytest.approx((10 - 103.53) / 57.375, abs=1e-6)
    found = preprocess(raw(pixels), Crop.fit(1600, 900), channel_order="rgb")
    assert found[0, 0, 0] == pytest.approx((10 - 123.675) / 58.395, abs=1e-6)


def test_impossible_crops_are_refused() -> None:
    with pytest.raises(ParameterError, match="0x900"):
        Crop.fit(0, 900)
    with pytest.raises(ParameterError, match="cannot be cut"):
        Crop.fit(1, 200_000)


# Raw images ------------------------------------------------------------------------------------

LAYOUTS = {
    "rgb8": lambda p: p,
    "bgr8": lambda p: p[..., ::-1],
    "rgba8": lambda p: np.concatenate([p, p[..., :1] ^ 255], axis=-1),
    "bgra8": lambda p: np.concatenate([p[..., ::-1], p[..., :1] ^ 255], axis=-1),
    "8UC3": lambda p: p[..., ::-1],
}


@pytest.mark.parametrize("encoding", LAYOUTS)
@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize("kind", ["bytes", "bytearray", "memoryview", "array", "rows"])
def test_raw_encodings_give_the_same_pixels_at_any_row_step(
    encoding: str, padding: int, kind: str
) -> None:
    pixels = noise(12, 17)
    stored = np.ascontiguousarray(LAYOUTS[encoding](pixels))
    rows = np.pad(stored.reshape(12, -1), ((0, 0), (0, padding)), constant_values=99)
    data = rows.tobytes()
    if kind == "rows":
        image = CameraImage("cam_front", 1, stored, encoding)
    else:
        holders = {
            "bytes": bytes,
            "bytearray": bytearray,
            "memoryview": memoryview,
            "array": lambda b: np.frombuffer(b, dtype=np.uint8),
        }
        image = CameraImage("cam_front", 1, holders[kind](data), encoding, 12, 17, rows.shape[1])
    np.testing.assert_array_equal(decode(image), pixels)


@pytest.mark.parametrize("encoding", [*LAYOUTS, "mono8"])
def test_the_last_row_needs_no_padding(encoding: str) -> None:
    channels = {"mono8": 1, "rgba8": 4, "bgra8": 4}.get(encoding, 3)
    rows = noise(6, 100)[..., 0]
    whole = CameraImage("cam_front", 1, rows.tobytes(), encoding, 6, 20, 100)
    short = CameraImage("cam_front", 1, rows.tobytes()[: 500 + 20 * channels], encoding, 6, 20, 100)
    np.testing.assert_array_equal(decode(short), decode(whole))


def test_gray_becomes_three_equal_channels() -> None:
    gray = noise(12, 17)[..., 0]
    image = CameraImage("cam_front", 1, gray.tobytes(), "mono8", 12, 17, 17)
    np.testing.assert_array_equal(decode(image), np.repeat(gray[..., None], 3, axis=-1))
    np.testing.assert_array_equal(decode(raw(gray, "mono8")), decode(image))
    crop = Crop.fit(17, 12, (8, 16))
    np.testing.assert_array_equal(preprocess(image, crop), preprocess(raw(decode(image)), crop))


def test_8uc3_is_what_one_says_it_is() -> None:
    pixels = noise(4, 5)
    np.testing.assert_array_equal(decode(raw(pixels, "8UC3")), pixels[..., ::-1])
    np.testing.assert_array_equal(decode(raw(pixels, "8UC3"), "rgb8"), pixels)


def test_views_with_any_strides_are_accepted() -> None:
    pixels = noise(20, 30)
    view = pixels[::2, 5:25]
    np.testing.assert_array_equal(decode(raw(view)), view)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (CameraImage("c", 1, bytes(60), "rgb8", 4, 5, 14), "rows of 14 bytes cannot hold 5 pixels"),
        (CameraImage("c", 1, bytes(59), "rgb8", 4, 5, 15), "59 bytes are too few for 5x4 pixels"),
        (CameraImage("c", 1, bytes(60), "rgb8", 0, 5, 15), "5x0 pixels cannot be"),
        (CameraImage("c", 1, bytes(60), "rgb8", -4, 5, 15), "5x-4 pixels cannot be"),
        (CameraImage("c", 1, b"", "rgb8", 4, 5, 15), "holds no bytes"),
        (CameraImage("c", 1, bytes(60), "bayer_rggb8", 4, 5), "bayer_rggb8, which comes in pairs"),
        (CameraImage("c", 1, bytes(60), "yuv422", 4, 5), "yuv422, which comes in pairs"),
        (CameraImage("c", 1, bytes(60), "nv12", 10, 8), "too few"),
        (CameraImage("c", 1, bytes(60), "32FC1", 4, 5), "32FC1.*supported are rgb8.*cv_bridge"),
        (CameraImage("c", 1, bytes(60), "16UC1", 4, 5), "'16UC1' is not supported"),
        (CameraImage("c", 1, bytes(60), "mono16", 7, 5), "too few"),
        (CameraImage("c", 1, bytes(60), "", 4, 5), "'' is not supported"),
        (CameraImage("c", 1, bytes(60), "rgb8", 40_000, 40_000), "claims 40000x40000 pixels"),
        (CameraImage("c", 1, "text", "rgb8", 4, 5), "no row of bytes"),
        (CameraImage("c", 1, np.zeros((4, 5, 4), np.uint8), "rgb8"), "no 5x4 image of rgb8"),
        (CameraImage("c", 1, np.zeros((4, 5, 3)), "rgb8"), r"array of float64 \(4, 5, 3\)"),
        (CameraImage("c", 1, np.zeros((4, 5, 3), np.uint8), "rgb8", 5, 4), "no 4x5 image"),
        (CameraImage("c", 1, np.zeros((0, 5, 3), np.uint8), "rgb8"), "no 5x0 image"),
        (CameraImage("c", 1, np.zeros(60, np.float32), "rgb8", 40, 50), "too few"),
    ],
)
def test_raw_images_that_cannot_be_are_refused_by_name(image: CameraImage, message: str) -> None:
    with pytest.raises(ImageError, match=rf"^c: .*{message}"):
        decode(image)


# Compressed images ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    "encoding", ["jpeg", "png", "compressed", "JPEG", "rgb8; jpeg compressed bgr8", "jpg"]
)
def test_the_first_bytes_tell_jpeg_from_png(form: str, encoding: str) -> None:
    pixels = scene(90, 160)
    data = encoded(pixels, form, **({"quality": 95} if form == "JPEG" else {}))
    found = decode(compressed(data, encoding))
    assert np.abs(found.astype(int) - pixels).mean() < (2 if form == "JPEG" else 1e-9)


def test_alpha_palette_gray_and_cmyk_become_rgb() -> None:
    pixels = scene(30, 40)
    alpha = np.concatenate([pixels, pixels[..., :1]], axis=-1)
    np.testing.assert_array_equal(decode(compressed(encoded(alpha, "PNG"))), pixels)
    gray = pixels[..., 2]
    expected = np.repeat(gray[..., None], 3, axis=-1)
    np.testing.assert_array_equal(decode(compressed(encoded(gray, "PNG"))), expected)
    two = (pixels[..., :1] > 100) * np.array([[[10, 200, 30]]], dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(two).quantize(4).save(out, "PNG")
    np.testing.assert_array_equal(decode(compressed(out.getvalue())), two)
    out = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(out, "JPEG", quality=98)
    assert np.abs(decode(compressed(out.getvalue())).astype(int) - pixels).mean() < 4


def test_sixteen_bit_gray_is_refused() -> None:
    data = encoded(np.full((8, 8), 40_000, dtype=np.uint16), "PNG")
    with pytest.raises(ImageError, match="cam_front: a PNG image with more than 8 bits"):
        decode(compressed(data))


def test_an_exif_orientation_changes_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to look at
    data = encoded(scene(30, 40), exif=exif.tobytes(), quality=95)
    assert decode(compressed(data)).shape == (30, 40, 3)


def test_what_is_no_image_is_refused_by_name() -> None:
    jpeg = encoded(scene(90, 160))
    gif = encoded(scene(9, 16), "GIF")
    for data, why in [
        (b"", "holds no bytes"),
        (b"\x00", "1 bytes that are no JPEG or PNG"),
        (b"this is not an image", "they begin with 74 68 69 73"),
        (jpeg[:3], "no JPEG or PNG"),
        (jpeg[: len(jpeg) // 2], "truncated"),
        (gif, "no JPEG or PNG"),
        (encoded(noise(40, 40), "PNG")[:1000], "damaged"),
    ]:
        with pytest.raises(ImageError, match=rf"^cam_front: .*{why}"):
            decode(compressed(data))


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


@pytest.mark.parametrize("side", [9_000, 12_000, 100_000, 2**31 - 1])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_few_bytes_cannot_unfold_to_gigabytes(side: int) -> None:
    with pytest.raises(ImageError, match="cam_front: "):
        decode(compressed(png_header(side, side)))


def test_an_image_of_another_size_than_its_calibration_is_refused() -> None:
    for image in (compressed(encoded(scene(450, 800))), raw(scene(450, 800))):
        with pytest.raises(ImageError, match="cam_front: .*800x450.*calibration is for 1600x900"):
            preprocess(image, Crop.fit(1600, 900))


# Fuzzing ---------------------------------------------------------------------------------------

JPEG = encoded(scene(60, 80), quality=80)
PNG = encoded(scene(60, 80), "PNG")


def assert_image_or_image_error(image: CameraImage) -> None:
    try:
        pixels = decode(image)
    except ImageError as error:
        assert str(error).startswith("cam_front: ")
        assert "\n" not in str(error)
    else:
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.dtype == np.uint8


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=400), st.sampled_from([b"", JPEG[:4], JPEG[:300], PNG[:8], PNG[:60]]))
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_random_bytes_never_do_anything_else_than_be_refused(data: bytes, begin: bytes) -> None:
    assert_image_or_image_error(compressed(begin + data))


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from([JPEG, PNG]),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=8),
    st.integers(0, 2**16),
    st.booleans(),
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_images_give_an_array_or_an_image_error(
    data: bytes, changes: list[tuple[int, int]], cut: int, truncate: bool
) -> None:
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    if truncate:
        damaged = damaged[: cut % (len(damaged) + 1)]
    assert_image_or_image_error(compressed(bytes(damaged)))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_real_image_cut_or_changed_anywhere_gives_an_array_or_an_image_error(
    real: dict[str, CameraImage],
) -> None:
    data = real["cam_front"].data
    dice = random.Random(0)
    for _ in range(40):
        damaged = bytearray(data[: dice.randrange(len(data))])
        for _ in range(dice.randrange(3)):
            damaged[dice.randrange(min(2000, len(damaged)) or 1)] = dice.randrange(256)
        assert_image_or_image_error(compressed(bytes(damaged)))


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from([*SUPPORTED_ENCODINGS, "BGR8", "8UC4", "x"]),
    st.integers(-2, 40),
    st.integers(-2, 40),
    st.integers(-2, 200),
    st.integers(0, 3000),
)
def test_raw_messages_of_any_shape_give_an_array_or_an_image_error(
    encoding: str, height: int, width: int, step: int, size: int
) -> None:
    image = CameraImage("cam_front", 1, bytes(size), encoding, height, width, step)
    assert_image_or_image_error(image)


# Undistortion ----------------------------------------------------------------------------------

DISTORTIONS = {
    "plumb_bob": (-0.3, 0.09, 0.001, -0.0005, 0.0),
    "rational_polynomial": (0.5, -0.1, 0.0, 0.0, 0.01, 0.8, 0.0, 0.0),
    "equidistant": (0.05, -0.01, 0.002, 0.0),
}


def distorted_pixel(model: str, d: tuple[float, ...], x: float, y: float) -> tuple[float, float]:
    """Where the camera sees the direction (x, y, 1), in normalised coordinates."""
    r2 = x * x + y * y
    if model == "equidistant":
        r = math.sqrt(r2)
        theta = math.atan(r)
        bent = theta * (1 + sum(k * theta ** (2 * i + 2) for i, k in enumerate(d)))
        return x * bent / r, y * bent / r
    k = (*d, 0.0, 0.0, 0.0)[:8]
    radial = (1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))) / (
        1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7]))
    )
    dx = 2 * k[2] * x * y + k[3] * (r2 + 2 * x * x)
    dy = k[2] * (r2 + 2 * y * y) + 2 * k[3] * x * y
    return x * radial + dx, y * radial + dy


@pytest.mark.parametrize("model", DISTORTIONS)
def test_undistortion_puts_a_spot_where_a_pinhole_camera_sees_it(model: str) -> None:
    pytest.importorskip("cv2")
    d = DISTORTIONS[model]
    camera = calibration("cam_front", 640, 480, distortion=d, distortion_model=model)
    undistort = Undistortion(camera)
    f, cx, cy = camera.intrinsics[0, 0], camera.intrinsics[0, 2], camera.intrinsics[1, 2]
    for x, y in ((0.12, 0.08), (-0.15, 0.1), (0.02, -0.14)):
        u, v = distorted_pixel(model, d, x, y)
        pixels = np.zeros((480, 640, 3), dtype=np.uint8)
        rows, columns = np.mgrid[0:480, 0:640]
        spot = np.exp(-((columns - (f * u + cx)) ** 2 + (rows - (f * v + cy)) ** 2) / 18)
        pixels[:] = (255 * spot)[..., None]
        found = undistort(pixels)[..., 0].astype(np.float64)
        at = [(grid * found).sum() / found.sum() for grid in (columns, rows)]
        np.testing.assert_allclose(at, [f * x + cx, f * y + cy], atol=0.3)


def test_distortion_is_taken_out_before_resizing_only_on_request() -> None:
    pytest.importorskip("cv2")
    d = DISTORTIONS["plumb_bob"]
    rig = {c: calibration(c, 640, 360, distortion=d, distortion_model="plumb_bob") for c in CAMERAS}
    taken = {c: raw(scene(360, 640)) for c in CAMERAS}
    with Preprocessor(undistort=True, decode="fast") as undistorting, Preprocessor() as plain:
        undistorted = undistorting(frame(taken, rig))
        as_is = plain(frame(taken, rig))
    by_hand = Undistortion(rig["cam_front"])(scene(360, 640))
    crop = Crop.fit(640, 360)
    np.testing.assert_array_equal(undistorted[2], preprocess(raw(by_hand), crop))
    np.testing.assert_array_equal(as_is[2], preprocess(raw(scene(360, 640)), crop))
    assert np.abs(undistorted - as_is).max() > 0.1


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [("plumb_bob", (0.1, 0.0)), ("", (0.1,) * 4), ("thin_prism", (0.1,) * 4)],
)
def test_distortion_models_that_are_unknown_are_refused(
    model: str, coefficients: tuple[float, ...]
) -> None:
    pytest.importorskip("cv2")
    camera = calibration("cam_front", distortion=coefficients, distortion_model=model)
    with pytest.raises(CalibrationError, match=f"cam_front: distortion model '{model}'"):
        Undistortion(camera)


def test_without_opencv_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_cv2(name: str, *rest: object) -> object:
        if name == "cv2":
            raise ImportError("No module named 'cv2'")
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_cv2)
    with pytest.raises(ParameterError, match=r"cam_front: .* install opencv-python-headless"):
        Undistortion(calibration("cam_front", distortion=(0.1,) * 5, distortion_model="plumb_bob"))


# Preprocessor ----------------------------------------------------------------------------------


def test_six_images_come_out_in_the_order_of_the_cameras_on_any_number_of_threads(
    real: dict[str, CameraImage],
) -> None:
    shuffled = dict(reversed(real.items()))
    with Preprocessor(threads=1) as one, Preprocessor(threads=3) as three:
        found = one(frame(shuffled))
        np.testing.assert_array_equal(three(frame(real)), found)
    assert found.shape == (6, 3, 256, 704)
    assert found.dtype == np.float32
    for i, camera in enumerate(CAMERAS):
        np.testing.assert_array_equal(found[i], preprocess(real[camera], Crop.fit(1600, 900)))


def test_a_missing_camera_is_black_before_it_is_normalised() -> None:
    taken = {c: raw(scene(90, 160)) for c in CAMERAS if c != "cam_back"}
    rig = {c: calibration(c, 160, 90) for c in CAMERAS}
    black = preprocess(raw(np.zeros((90, 160, 3), np.uint8)), Crop.fit(160, 90))
    with Preprocessor() as preprocessor:
        found = preprocessor(frame(taken, rig))
    np.testing.assert_array_equal(found[4], black)
    assert found[4, 0, 0, 0] == pytest.approx(-123.675 / 58.395)


def test_one_bad_image_is_named_and_the_next_frame_works() -> None:
    rig = {c: calibration(c, 160, 90) for c in CAMERAS}
    good = {c: CameraImage(c, 1, encoded(scene(90, 160)), "jpeg") for c in CAMERAS}
    bad = good | {"cam_back_left": CameraImage("cam_back_left", 1, b"xyz", "jpeg")}
    with Preprocessor() as preprocessor:
        with pytest.raises(ImageError, match="cam_back_left: 3 bytes that are no JPEG"):
            preprocessor(frame(bad, rig))
        with pytest.raises(CalibrationError, match="cam_front: .* no calibration"):
            preprocessor(frame(good, {c: rig[c] for c in CAMERAS if c != "cam_front"}))
        assert preprocessor(frame(good, rig)).shape == (6, 3, 256, 704)


def test_cameras_of_different_sizes_and_other_inputs_work() -> None:
    sizes = {c: (160 + 16 * i, 120 - 7 * i) for i, c in enumerate(CAMERAS)}
    rig = {c: calibration(c, *size) for c, size in sizes.items()}
    taken = {c: raw(scene(size[1], size[0])) for c, size in sizes.items()}
    with Preprocessor(input_size=(64, 128)) as preprocessor:
        found = preprocessor(frame(taken, rig))
        crop = preprocessor.crop(rig["cam_back"])
    np.testing.assert_array_equal(found[4], preprocess(taken["cam_back"], crop))


def test_fast_decoding_stays_close_to_exact_decoding(real: dict[str, CameraImage]) -> None:
    with Preprocessor(decode="fast") as fast, Preprocessor() as exact:
        steps = np.abs(fast(frame(real)) - exact(frame(real))) * 57.0
    assert 0.01 < steps.mean() < 0.7
    assert np.percentile(steps, 99) < 3.5


def test_fast_decoding_of_an_image_that_is_small_already_is_exact() -> None:
    image = compressed(encoded(scene(396, 704)))
    crop = Crop.fit(704, 396)
    np.testing.assert_array_equal(preprocess(image, crop, decode="fast"), preprocess(image, crop))


@pytest.mark.parametrize(
    "options",
    [
        {"channel_order": "gbr"},
        {"decode": "faster"},
        {"assume_8uc3": "yuv"},
        {"threads": 0},
        {"std": (1.0, 0.0, 1.0)},
        {"mean": (1.0, 2.0)},
    ],
)
def test_settings_that_are_unknown_are_refused(options: dict) -> None:
    with pytest.raises(ParameterError, match=next(iter(options))):
        Preprocessor(**options)
